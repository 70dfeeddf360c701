//! Pools of buffers, taken at start. Owns how many there are and how long each is; sees no frame's contents.

use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::{Handle, PoolPtr};
use crate::error::{self, Error};
use crate::mbuf::Mbuf;

/// Bytes before the frame in each buffer, which DPDK keeps for headers put in front.
pub const HEADROOM: u16 = sys::RTE_PKTMBUF_HEADROOM as u16;

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// At most 25 letters, and no other pool's.
    pub name: String,
    /// Buffers. Memory is used best with a power of two less one.
    pub mbufs: u32,
    /// Buffers kept with each registered thread, so that most are taken and given back without touching
    /// what other threads share; at most 512.
    pub cache: u32,
    /// Bytes of a frame that one buffer holds; [`HEADROOM`] comes on top.
    pub frame_room: u16,
    /// The NUMA node; `None` for any.
    pub numa: Option<u32>,
    /// A card reads and writes the buffers by their physical addresses, so none may lie across two pages. Without cards
    /// they lie side by side, which saves memory, and which net_af_xdp counts on.
    pub for_cards: bool,
}

impl PoolConfig {
    /// `mbufs` buffers, each for an ordinary Ethernet frame.
    pub fn new(name: &str, mbufs: u32) -> Self {
        Self { name: name.to_owned(), mbufs, cache: 256, frame_room: 2048, numa: None, for_cards: true }
    }

    /// Bytes of DPDK memory that the pool takes, rounded up: what to ask for before EAL starts.
    pub const fn bytes(&self) -> usize {
        self.mbufs as usize * self.buffer_bytes()
    }

    /// The same without hugepages, where a buffer for cards has its pages for itself.
    pub const fn plain_bytes(&self) -> usize {
        if !self.for_cards {
            return self.bytes();
        }
        let (buffer, page) = (self.buffer_bytes(), 4096);
        match page / buffer {
            0 => self.mbufs as usize * buffer.next_multiple_of(page),
            per_page => (self.mbufs as usize).div_ceil(per_page) * page,
        }
    }

    const fn buffer_bytes(&self) -> usize {
        // struct rte_mbuf and the mempool's object header, each with its padding to cache lines, and a slot in the
        // pool's ring of pointers. Bounded from above by 320 bytes.
        self.frame_room as usize + HEADROOM as usize + 320
    }
}

/// A pool of buffers. A cheap handle: clones are the same pool. The pool itself lives until EAL ends.
#[derive(Clone, Debug)]
pub struct Mempool {
    raw: NonNull<sys::rte_mempool>,
    name: Arc<str>,
    mbufs: u32,
    frame_room: u16,
    /// The pool is EAL's: it must not end before this handle.
    _eal: Handle,
}

// SAFETY: the pool's default operations are multi-producer and multi-consumer; each registered thread has a
// cache of its own and other threads use none.
unsafe impl Send for Mempool {}
// SAFETY: as for Send.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// A new pool.
    pub fn create(eal: &Handle, config: &PoolConfig) -> Result<Self, Error> {
        let &PoolConfig { ref name, mbufs, cache, frame_room, numa, for_cards } = config;
        let c_name = error::c_string(name)?;
        let data_room = frame_room.saturating_add(HEADROOM);
        // DPDK refuses a cache above its limit, or above two thirds of the pool.
        let cache = cache.min(sys::RTE_MEMPOOL_CACHE_MAX_SIZE).min(mbufs / 2);
        // -1 is SOCKET_ID_ANY.
        let node = numa.map_or(-1, |node| node as i32);
        let _control = eal.control();
        // SAFETY: EAL runs while `eal` lives; the name is NUL-terminated and copied.
        let raw = unsafe {
            if for_cards {
                sys::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, data_room, node)
            } else {
                sys::dpdk_pktmbuf_pool_dense(c_name.as_ptr(), mbufs, cache, data_room, node)
            }
        };
        let Some(raw) = NonNull::new(raw) else {
            let errno = error::last();
            // ENOMEM, or ENOBUFS where memory was found for a part of it. DPDK also says ENOENT and EINVAL here, for names
            // and sizes.
            if matches!(errno, 12 | 105) {
                let need_mib = config.bytes().div_ceil(1 << 20);
                return Err(Error::PoolMemory { mbufs, data_room, need_mib });
            }
            return Err(Error::Pool { name: name.clone(), why: error::words(errno) });
        };
        eal.adopt(PoolPtr(raw));
        Ok(Self { raw, name: name.as_str().into(), mbufs, frame_room, _eal: eal.clone() })
    }

    /// As it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Buffers in all.
    pub fn mbufs(&self) -> u32 {
        self.mbufs
    }

    /// Bytes of a frame that one buffer holds.
    pub fn frame_room(&self) -> u16 {
        self.frame_room
    }

    /// Buffers not in the pool: in queues, in rings, or held as [`Mbuf`]. Exact only while nobody moves any.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives as long as EAL, which lives as long as this handle.
        unsafe { sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// A frame that is a copy of `bytes`, in as many segments as it needs; `None` if the pool is empty, or if
    /// `bytes` are more than 65,535.
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Mbuf> {
        if bytes.len() > usize::from(u16::MAX) {
            return None;
        }
        let room = usize::from(self.frame_room).max(1);
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.chain(first, rest.chunks(room))
    }

    /// A frame of these segments, each of which fits a buffer; `None` if one does not, or if the pool is empty. As a
    /// driver may deliver it.
    pub fn chain_of(&self, parts: &[Vec<u8>]) -> Option<Mbuf> {
        let (first, rest) = parts.split_first()?;
        let fit = parts.iter().all(|part| part.len() <= usize::from(self.frame_room));
        let whole = parts.iter().map(Vec::len).sum::<usize>() <= usize::from(u16::MAX);
        if fit && whole { self.chain(first, rest.iter().map(Vec::as_slice)) } else { None }
    }

    fn chain<'a>(&self, first: &[u8], rest: impl Iterator<Item = &'a [u8]>) -> Option<Mbuf> {
        let head = self.segment(first)?;
        for part in rest {
            let tail = self.segment(part)?;
            // SAFETY: both are live chains that we own; on success the tail belongs to the head.
            if unsafe { sys::dpdk_pktmbuf_chain(head.as_ptr(), tail.as_ptr()) } != 0 {
                return None;
            }
            tail.into_raw();
        }
        Some(head)
    }

    /// One segment holding `bytes`, which fit.
    fn segment(&self, bytes: &[u8]) -> Option<Mbuf> {
        // SAFETY: the pool is alive.
        let raw = NonNull::new(unsafe { sys::dpdk_pktmbuf_alloc(self.raw.as_ptr()) })?;
        // SAFETY: alloc gives a live mbuf that nobody else owns.
        let mbuf = unsafe { Mbuf::from_raw(raw) };
        // SAFETY: as above.
        let at = unsafe { sys::dpdk_pktmbuf_append(raw.as_ptr(), bytes.len() as u16) };
        let at = NonNull::new(at)?;
        // SAFETY: append gave `bytes.len()` bytes of the buffer, which is ours and apart from `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr().cast(), bytes.len()) }
        Some(mbuf)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }
}
