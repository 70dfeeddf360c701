//! One frame in a DPDK buffer, owned. Reads its fields inline; trusts no length a driver wrote.
//! It sees no port and no queue.

use std::fmt;
use std::ptr::{self, NonNull};

use dpdk_sys::{self as sys, mbuf as field};

/// An owned frame. Dropping it gives all of its segments back to their pool.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<sys::rte_mbuf>,
}

// SAFETY: an mbuf belongs to whoever holds its Mbuf, and pools take buffers back from any thread.
unsafe impl Send for Mbuf {}
// SAFETY: nothing is changed through a shared reference.
unsafe impl Sync for Mbuf {}

/// What the device said of a frame's transport checksum (`RTE_MBUF_F_RX_L4_CKSUM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Checksum {
    /// The device did not look.
    Unknown,
    Bad,
    Good,
    /// The field in the packet is not filled in, but the data is intact: it came from a local stack.
    None,
}

/// A frame whose fields contradict each other. Safe to look at and to drop; not worth tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A segment claims bytes outside its buffer.
    DataBeyondBuffer,
    /// The chain of segments is shorter or longer than the frame says, or bites its tail.
    SegmentCount,
    /// The segments do not add up to the frame's length.
    PacketLength,
}

impl Lie {
    /// Every lie, in order.
    pub const ALL: [Lie; 3] = [Self::DataBeyondBuffer, Self::SegmentCount, Self::PacketLength];

    /// A word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::DataBeyondBuffer => "data_beyond_buffer",
            Self::SegmentCount => "segment_count",
            Self::PacketLength => "packet_length",
        }
    }
}

impl Mbuf {
    /// # Safety
    /// `raw` is a live mbuf (the head of its chain) that nobody else owns, from a pool that lives as long as EAL.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self { raw }
    }

    /// Gives the pointer away; the caller frees it or hands it on.
    pub(crate) fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mbuf {
        self.raw.as_ptr()
    }

    /// The first segment's bytes; all of the frame, if [`Mbuf::segments`] is 1. Clipped to the buffer, whatever
    /// the fields say.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the chain's head is a live mbuf, borrowed with self.
        unsafe { segment_data(self.raw.as_ptr()) }
    }

    /// Has the processor fetch the buffer's description, which [`Mbuf::prefetch_data`] and all else read.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch(self.raw.as_ptr().cast());
    }

    /// Has the processor fetch the frame's first bytes.
    #[inline(always)]
    pub fn prefetch_data(&self) {
        prefetch(self.data().as_ptr());
    }

    /// Bytes in all segments, as the driver says.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: raw is a live mbuf.
        unsafe { field::pkt_len(self.raw.as_ptr()) as usize }
    }

    /// Whether the frame has no byte.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Segments, as the driver says.
    #[inline(always)]
    pub fn segments(&self) -> u16 {
        // SAFETY: raw is a live mbuf.
        unsafe { field::nb_segs(self.raw.as_ptr()) }
    }

    /// The number of the port that received it.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: raw is a live mbuf.
        unsafe { field::port(self.raw.as_ptr()) }
    }

    /// Writes another number in the place of the port's, for whoever gets the frame next: no driver reads it.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        // SAFETY: raw is a live mbuf that this Mbuf owns, borrowed mutably.
        unsafe { field::set_port(self.raw.as_ptr(), port) }
    }

    /// Whether the device found an IPv4 header's checksum right.
    #[inline(always)]
    pub fn ip_checksum_good(&self) -> bool {
        // SAFETY: raw is a live mbuf.
        let flags = unsafe { field::ol_flags(self.raw.as_ptr()) };
        flags & sys::DPDK_MBUF_F_RX_IP_CKSUM_MASK == sys::DPDK_MBUF_F_RX_IP_CKSUM_GOOD
    }

    /// What the device said of the transport checksum.
    #[inline(always)]
    pub fn checksum(&self) -> L4Checksum {
        // SAFETY: raw is a live mbuf.
        let flags = unsafe { field::ol_flags(self.raw.as_ptr()) };
        match flags & sys::DPDK_MBUF_F_RX_L4_CKSUM_MASK {
            sys::DPDK_MBUF_F_RX_L4_CKSUM_GOOD => L4Checksum::Good,
            sys::DPDK_MBUF_F_RX_L4_CKSUM_BAD => L4Checksum::Bad,
            sys::DPDK_MBUF_F_RX_L4_CKSUM_NONE => L4Checksum::None,
            _ => L4Checksum::Unknown,
        }
    }

    /// Has the frame say this of its transport checksum: after it was filled in, or where a test plays the device.
    pub fn set_checksum(&mut self, checksum: L4Checksum) {
        let bits = match checksum {
            L4Checksum::Unknown => 0,
            L4Checksum::Bad => sys::DPDK_MBUF_F_RX_L4_CKSUM_BAD,
            L4Checksum::Good => sys::DPDK_MBUF_F_RX_L4_CKSUM_GOOD,
            L4Checksum::None => sys::DPDK_MBUF_F_RX_L4_CKSUM_NONE,
        };
        // SAFETY: raw is a live mbuf, borrowed mutably with self.
        unsafe {
            let flags = field::ol_flags(self.raw.as_ptr()) & !sys::DPDK_MBUF_F_RX_L4_CKSUM_MASK;
            field::set_ol_flags(self.raw.as_ptr(), flags | bits);
        }
    }

    /// Whether something is left to do before the frame can leave by a device that is not asked for it: the transport
    /// checksum is not filled in, or the device took the VLAN tag off.
    #[inline(always)]
    pub fn is_unfinished(&self) -> bool {
        // SAFETY: raw is a live mbuf.
        let flags = unsafe { field::ol_flags(self.raw.as_ptr()) };
        flags & sys::DPDK_MBUF_F_RX_L4_CKSUM_MASK == sys::DPDK_MBUF_F_RX_L4_CKSUM_NONE
            || flags & sys::DPDK_MBUF_F_RX_VLAN_STRIPPED != 0
    }

    /// Puts a VLAN tag that the device took off back; false if there is no room for it. True without one.
    pub fn restore_vlan(&mut self) -> bool {
        // SAFETY: raw is a live mbuf that this Mbuf owns alone; the call moves its first bytes within its headroom.
        unsafe {
            let stripped = field::ol_flags(self.raw.as_ptr()) & sys::DPDK_MBUF_F_RX_VLAN_STRIPPED != 0;
            !stripped || sys::dpdk_vlan_insert(self.raw.as_ptr()) == 0
        }
    }

    /// Plays a device that took the VLAN tag off and tells it aside.
    #[cfg(test)]
    pub(crate) fn strip_vlan(&mut self, tag: u16) {
        // SAFETY: raw is a live mbuf, borrowed mutably with self.
        unsafe {
            field::set_vlan_tci(self.raw.as_ptr(), tag);
            let flags = field::ol_flags(self.raw.as_ptr()) | sys::DPDK_MBUF_F_RX_VLAN_STRIPPED;
            field::set_ol_flags(self.raw.as_ptr(), flags);
        }
    }

    /// Writes `bytes` at `at`, counted over all segments; false if the frame ends before they do.
    pub fn write_at(&mut self, at: usize, bytes: &[u8]) -> bool {
        let (mut at, mut left) = (at, bytes);
        let mut segment = self.raw.as_ptr();
        for _ in 0..self.segments() {
            if segment.is_null() || left.is_empty() {
                break;
            }
            // SAFETY: a live segment of this chain; the walk is bounded by nb_segs.
            let (len, next) = unsafe { (segment_data(segment).len(), field::next(segment)) };
            let (here, behind) = left.split_at(len.saturating_sub(at).min(left.len()));
            if !here.is_empty() {
                // SAFETY: at + here.len() bytes lie in the segment's data, as it is clipped to its buffer, which this
                // Mbuf owns and nobody else looks at now.
                unsafe {
                    let start = usize::from(field::data_off(segment).min(field::buf_len(segment)));
                    let to = field::buf_addr(segment).add(start + at);
                    ptr::copy_nonoverlapping(here.as_ptr(), to, here.len());
                }
            }
            at = at.saturating_sub(len);
            left = behind;
            segment = next;
        }
        left.is_empty()
    }

    /// Makes the frame one segment of `bytes`, whatever it was; false, and nothing is changed, if a buffer does not hold so
    /// many.
    pub fn replace(&mut self, bytes: &[u8]) -> bool {
        let Ok(length) = u16::try_from(bytes.len()) else { return false };
        // SAFETY: raw is a live chain that this Mbuf owns alone. The call frees all segments but the first and gives room
        // for `length` bytes in that one's buffer, or null.
        let at = unsafe { sys::dpdk_pktmbuf_replace(self.raw.as_ptr(), length) };
        let Some(at) = NonNull::new(at) else { return false };
        // SAFETY: as above; `bytes` are borrowed elsewhere, so they lie outside this buffer.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr().cast(), bytes.len()) }
        true
    }

    /// Moves all bytes into the first segment, for a device that sends no others; false, and nothing is changed, if they
    /// do not fit there.
    pub fn linearize(&mut self) -> bool {
        // SAFETY: raw is a live chain that this Mbuf owns alone; the call copies within its buffers' bounds as the fields
        // tell them, which `check` has found true of every chain that a queue delivered.
        self.segments() == 1 || unsafe { sys::dpdk_pktmbuf_linearize(self.raw.as_ptr()) == 0 }
    }

    /// Whether the frame is one segment whose lengths agree with its buffer: four loads from the line that is read
    /// anyway. `next` is not looked at: DPDK itself keeps it null in every buffer that a driver did not chain.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        // SAFETY: raw is a live mbuf.
        let (fits, data_len) = unsafe { segment_fits(self.raw.as_ptr()) };
        fits & (self.segments() == 1) & (self.len() == data_len)
    }

    /// Whether the frame's fields agree with each other and with its buffers. A chain found to lead back into itself
    /// is cut, so that freeing the frame meets each segment once.
    pub(crate) fn check(&mut self) -> Result<(), Lie> {
        let mut left = self.segments();
        let mut bytes = 0;
        let mut segment = self.raw.as_ptr();
        while left > 0 && !segment.is_null() {
            // SAFETY: each segment of the chain is a live mbuf that this Mbuf owns; the walk is bounded by nb_segs.
            let ((fits, data_len), next) = unsafe { (segment_fits(segment), field::next(segment)) };
            if !fits {
                self.cut_loop();
                return Err(Lie::DataBeyondBuffer);
            }
            bytes += data_len;
            segment = next;
            left -= 1;
        }
        if left > 0 || !segment.is_null() {
            self.cut_loop();
            return Err(Lie::SegmentCount);
        }
        if bytes != self.len() { Err(Lie::PacketLength) } else { Ok(()) }
    }

    /// Ends a chain that leads back into itself, so that freeing it meets each segment once. Brent's cycle search:
    /// no memory, and a chain without a loop is left as it is.
    fn cut_loop(&mut self) {
        // SAFETY: every pointer reached is a segment of this chain, live and owned by this Mbuf.
        unsafe {
            let head = self.raw.as_ptr();
            let (mut power, mut length) = (1_u64, 1_u64);
            let (mut slow, mut fast) = (head, field::next(head));
            while slow != fast {
                if fast.is_null() {
                    return;
                }
                if power == length {
                    slow = fast;
                    power *= 2;
                    length = 0;
                }
                fast = field::next(fast);
                length += 1;
            }
            // `length` is the loop's. The one that leads back is `length - 1` steps behind where the two meet,
            // when one of them starts `length` steps ahead.
            let mut ahead = head;
            for _ in 1..length {
                ahead = field::next(ahead);
            }
            let mut behind = head;
            while field::next(ahead) != behind {
                ahead = field::next(ahead);
                behind = field::next(behind);
            }
            field::set_next(ahead, ptr::null_mut());
        }
    }

    /// Copies the frame into the start of `out`; gives the bytes copied, cut at `out`'s end. Reads no more segments
    /// than the frame says and no byte outside a buffer.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut copied = 0;
        let mut segment = self.raw.as_ptr();
        for _ in 0..self.segments() {
            if segment.is_null() {
                break;
            }
            // SAFETY: a live segment of this chain, borrowed with self; the walk is bounded by nb_segs.
            let (bytes, next) = unsafe { (segment_data(segment), field::next(segment)) };
            let room = out.get_mut(copied..).unwrap_or_default();
            let n = bytes.len().min(room.len());
            room[..n].copy_from_slice(&bytes[..n]);
            copied += n;
            if n < bytes.len() {
                break;
            }
            segment = next;
        }
        copied
    }
}

/// Asks for the cache line at `at`; no byte is read, so any address will do.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of an address that is not mapped does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Whether the segment's data lies in its buffer, and how long it says that it is.
///
/// # Safety
/// `m` is a live mbuf.
#[inline(always)]
unsafe fn segment_fits(m: *const sys::rte_mbuf) -> (bool, usize) {
    // SAFETY: by this function's contract.
    let (off, len, room) = unsafe { (field::data_off(m), field::data_len(m), field::buf_len(m)) };
    (usize::from(off) + usize::from(len) <= usize::from(room), usize::from(len))
}

/// The segment's bytes, clipped to its buffer.
///
/// # Safety
/// `m` is a live mbuf, and stays so, with nobody writing to its buffer, for `'a`.
#[inline(always)]
unsafe fn segment_data<'a>(m: *const sys::rte_mbuf) -> &'a [u8] {
    // SAFETY: buf_addr..buf_addr + buf_len is the buffer, which DPDK set when the pool was made; start and len stay
    // inside it.
    unsafe {
        let room = field::buf_len(m);
        let start = field::data_off(m).min(room);
        let len = field::data_len(m).min(room - start);
        std::slice::from_raw_parts(field::buf_addr(m).add(usize::from(start)), usize::from(len))
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: this Mbuf owns the chain, and drop runs once.
        unsafe { sys::dpdk_pktmbuf_free(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("segments", &self.segments())
            .field("port", &self.port())
            .field("checksum", &self.checksum())
            .finish()
    }
}
