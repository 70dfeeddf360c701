/* What bindgen reads and shim.c defines. build.rs allow-lists the names that reach Rust. */
#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_telemetry.h>
#include <rte_version.h>

/* Macros with casts (RTE_BIT64, UINT64_C) are invisible to bindgen's macro evaluator; libclang evaluates a
 * `static const` itself. */
static const uint64_t DPDK_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_MBUF_F_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t DPDK_MBUF_F_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t DPDK_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t DPDK_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t DPDK_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t DPDK_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t DPDK_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t DPDK_RSS_SCTP = RTE_ETH_RSS_SCTP;
static const uint64_t DPDK_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint64_t DPDK_MBUF_F_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_MBUF_F_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t DPDK_MBUF_F_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_MBUF_F_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;

static const uint64_t DPDK_MBUF_F_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;

/* Where the fields lie. bindgen's names for rte_mbuf change between releases (22.11 has marker fields, 24.07
 * and later anonymous unions); offsets follow the header that is really there. */
static const size_t DPDK_MBUF_OFF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t DPDK_MBUF_OFF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t DPDK_MBUF_OFF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t DPDK_MBUF_OFF_PORT = offsetof(struct rte_mbuf, port);
static const size_t DPDK_MBUF_OFF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t DPDK_MBUF_OFF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t DPDK_MBUF_OFF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t DPDK_MBUF_OFF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci);
static const size_t DPDK_MBUF_OFF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t DPDK_MBUF_OFF_NEXT = offsetof(struct rte_mbuf, next);

/* Thread-local variables. */
int dpdk_errno(void);

/* Functions that exist only as C inlines. One call per burst, or per packet that is not the common one. */
uint64_t dpdk_rdtsc(void);
uint16_t dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
void dpdk_pktmbuf_free(struct rte_mbuf *mbuf);
struct rte_mbuf *dpdk_pktmbuf_alloc(struct rte_mempool *pool);
int dpdk_pktmbuf_linearize(struct rte_mbuf *mbuf);
char *dpdk_pktmbuf_replace(struct rte_mbuf *mbuf, uint16_t len);
char *dpdk_pktmbuf_append(struct rte_mbuf *mbuf, uint16_t len);
int dpdk_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
int dpdk_vlan_insert(struct rte_mbuf *mbuf);
struct rte_mempool *dpdk_pktmbuf_pool_dense(const char *name, unsigned n, unsigned cache, uint16_t room, int socket);
unsigned dpdk_ring_enqueue(struct rte_ring *ring, struct rte_mbuf *const *mbufs, unsigned n);
unsigned dpdk_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned n);
unsigned dpdk_ring_room(const struct rte_ring *ring);

/* Bitfields whose layout changed between releases. */
int dpdk_link(uint16_t port, uint32_t *mbps, int *up, int *full_duplex);

/* Numbers in answers of the telemetry socket: called u64 before 23.03, and uint since. */
int dpdk_tel_start_numbers(struct rte_tel_data *data);
int dpdk_tel_add_number(struct rte_tel_data *array, uint64_t number);
int dpdk_tel_put_number(struct rte_tel_data *dict, const char *name, uint64_t number);

/* Sends DPDK's log to `sink`, one message a call, from now on and through rte_eal_init. Returns 0 or an errno. */
typedef void (*dpdk_log_sink)(int level, const char *text, size_t len);
int dpdk_log_to(dpdk_log_sink sink);

/* rte_eal_init with what it prints on stdout and stderr (its usage text, its FATAL lines) written to `said`
 * instead, NUL-terminated and cut at `room`. A panic's message still reaches the real stderr. Call it while
 * nothing else in the process prints. */
int dpdk_eal_init_quiet(int argc, char **argv, char *said, size_t room);
