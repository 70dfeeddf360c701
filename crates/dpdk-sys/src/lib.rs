//! Declarations of the system's libdpdk, limited to what build.rs allow-lists, and the few calls of the packet
//! path that C has as inline functions: bursts and buffer fields, written in Rust so that they inline here too.
//! Owns nothing; every rule of use is DPDK's own. The crate `dpdk` is the safe door.
#![no_std]
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, unreachable_pub)]
// Written by bindgen from the system's headers.
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// `rte_eth_rx_burst`: one indexed load of the port's fast-path table and one indirect call into the driver.
/// A queue with a receive callback (packet capture) takes C's way, which runs it.
///
/// # Safety
/// `port` is below `RTE_MAX_ETHPORTS` and started, `queue` was set up, one thread at a time uses the pair, and
/// `mbufs` has room for `n` pointers.
#[inline(always)]
pub unsafe fn rx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, n: u16) -> u16 {
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        if !(*(*ops).rxq.clbk.add(usize::from(queue))).is_null() {
            return dpdk_rx_burst(port, queue, mbufs, n);
        }
        let data = *(*ops).rxq.data.add(usize::from(queue));
        // ethdev fills every entry of the table before any port exists, with a dummy where there is no queue.
        ((*ops).rx_pkt_burst.unwrap_unchecked())(data, mbufs, n)
    }
}

/// `rte_eth_tx_burst`, likewise.
///
/// # Safety
/// As for [`rx_burst`]; the first `n` pointers are mbufs that the caller owns. Those sent belong to the driver.
#[inline(always)]
pub unsafe fn tx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, n: u16) -> u16 {
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        if !(*(*ops).txq.clbk.add(usize::from(queue))).is_null() {
            return dpdk_tx_burst(port, queue, mbufs, n);
        }
        let data = *(*ops).txq.data.add(usize::from(queue));
        ((*ops).tx_pkt_burst.unwrap_unchecked())(data, mbufs, n)
    }
}

/// The fields of `rte_mbuf` that the packet path reads, by the offsets of the header that was compiled against.
pub mod mbuf {
    use super::*;

    macro_rules! fields {
        ($($get:ident $set:ident: $type:ty, $offset:ident;)*) => {$(
            #[doc = concat!("Reads `", stringify!($get), "`.")]
            ///
            /// # Safety
            /// `m` is a live mbuf.
            #[inline(always)]
            pub unsafe fn $get(m: *const rte_mbuf) -> $type {
                unsafe { m.cast::<u8>().add($offset).cast::<$type>().read() }
            }

            #[doc = concat!("Writes `", stringify!($get), "`.")]
            ///
            /// # Safety
            /// `m` is a live mbuf that nobody else reads.
            #[inline(always)]
            pub unsafe fn $set(m: *mut rte_mbuf, value: $type) {
                unsafe { m.cast::<u8>().add($offset).cast::<$type>().write(value) }
            }
        )*};
    }

    fields! {
        buf_addr set_buf_addr: *mut u8, DPDK_MBUF_OFF_BUF_ADDR;
        data_off set_data_off: u16, DPDK_MBUF_OFF_DATA_OFF;
        nb_segs set_nb_segs: u16, DPDK_MBUF_OFF_NB_SEGS;
        port set_port: u16, DPDK_MBUF_OFF_PORT;
        ol_flags set_ol_flags: u64, DPDK_MBUF_OFF_OL_FLAGS;
        pkt_len set_pkt_len: u32, DPDK_MBUF_OFF_PKT_LEN;
        data_len set_data_len: u16, DPDK_MBUF_OFF_DATA_LEN;
        vlan_tci set_vlan_tci: u16, DPDK_MBUF_OFF_VLAN_TCI;
        buf_len set_buf_len: u16, DPDK_MBUF_OFF_BUF_LEN;
        next set_next: *mut rte_mbuf, DPDK_MBUF_OFF_NEXT;
    }
}
