/* Out-of-line doors to what exists in DPDK's headers alone, and EAL's start without its chatter. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_mbuf_pool_ops.h>

#include "wrapper.h"

int dpdk_errno(void) { return rte_errno; }
uint64_t dpdk_rdtsc(void) { return rte_rdtsc(); }

uint16_t dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

void dpdk_pktmbuf_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }
struct rte_mbuf *dpdk_pktmbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }
char *dpdk_pktmbuf_append(struct rte_mbuf *mbuf, uint16_t len) { return rte_pktmbuf_append(mbuf, len); }
int dpdk_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail) { return rte_pktmbuf_chain(head, tail); }

/*
 * rte_pktmbuf_pool_create takes no flags. Without RTE_MEMPOOL_F_NO_IOVA_CONTIG it leaves the rest of a page unused where
 * the next buffer would not fit whole, and net_af_xdp, which registers buffers times their size with the kernel, then
 * leaves the last buffers out: the kernel takes each of those off its list without a word, until the queue stands still.
 */
struct rte_mempool *dpdk_pktmbuf_pool_dense(const char *name, unsigned n, unsigned cache, uint16_t room, int socket)
{
	struct rte_pktmbuf_pool_private about = {.mbuf_data_room_size = room};
	struct rte_mempool *pool = rte_mempool_create_empty(name, n, sizeof(struct rte_mbuf) + room, cache, sizeof(about),
							    socket, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	int err = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (err == 0) {
		rte_pktmbuf_pool_init(pool, &about);
		err = rte_mempool_populate_default(pool);
	}
	if (err < 0) {
		rte_mempool_free(pool);
		rte_errno = -err;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

int dpdk_pktmbuf_linearize(struct rte_mbuf *mbuf) { return rte_pktmbuf_linearize(mbuf); }

char *dpdk_pktmbuf_replace(struct rte_mbuf *mbuf, uint16_t len)
{
	if (len > mbuf->buf_len - RTE_MIN(RTE_PKTMBUF_HEADROOM, mbuf->buf_len))
		return NULL;
	rte_pktmbuf_free(mbuf->next);
	mbuf->next = NULL;
	mbuf->nb_segs = 1;
	rte_pktmbuf_reset_headroom(mbuf);
	mbuf->data_len = len;
	mbuf->pkt_len = len;
	return rte_pktmbuf_mtod(mbuf, char *);
}

/* The function takes a pointer to the pointer and leaves it alone. */
int dpdk_vlan_insert(struct rte_mbuf *mbuf) { return rte_vlan_insert(&mbuf); }

unsigned dpdk_ring_enqueue(struct rte_ring *ring, struct rte_mbuf *const *mbufs, unsigned n)
{
	return rte_ring_sp_enqueue_burst(ring, (void *const *)mbufs, n, NULL);
}

unsigned dpdk_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned n)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)mbufs, n, NULL);
}

unsigned dpdk_ring_room(const struct rte_ring *ring) { return rte_ring_free_count(ring); }

int dpdk_link(uint16_t port, uint32_t *mbps, int *up, int *full_duplex)
{
	struct rte_eth_link link = {0};
	int err = rte_eth_link_get_nowait(port, &link);
	*mbps = link.link_speed;
	*up = link.link_status == RTE_ETH_LINK_UP;
	*full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return err;
}

#if RTE_VERSION >= RTE_VERSION_NUM(23, 3, 0, 0)
int dpdk_tel_start_numbers(struct rte_tel_data *data) { return rte_tel_data_start_array(data, RTE_TEL_UINT_VAL); }
int dpdk_tel_add_number(struct rte_tel_data *array, uint64_t number) { return rte_tel_data_add_array_uint(array, number); }
int dpdk_tel_put_number(struct rte_tel_data *dict, const char *name, uint64_t number)
{
	return rte_tel_data_add_dict_uint(dict, name, number);
}
#else
int dpdk_tel_start_numbers(struct rte_tel_data *data) { return rte_tel_data_start_array(data, RTE_TEL_U64_VAL); }
int dpdk_tel_add_number(struct rte_tel_data *array, uint64_t number) { return rte_tel_data_add_array_u64(array, number); }
int dpdk_tel_put_number(struct rte_tel_data *dict, const char *name, uint64_t number)
{
	return rte_tel_data_add_dict_u64(dict, name, number);
}
#endif

static dpdk_log_sink sink_to;
/* The real stderr while dpdk_eal_init_quiet holds descriptor 2; else -1. */
static int real_stderr = -1;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	int level = rte_log_cur_msg_loglevel();
	/* rte_panic aborts right after this message. */
	if (level <= (int)RTE_LOG_CRIT && real_stderr >= 0 && write(real_stderr, text, len) < 0)
		return (ssize_t)len;
	sink_to(level, text, len);
	return (ssize_t)len;
}

int dpdk_log_to(dpdk_log_sink sink)
{
	sink_to = sink;
	FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = log_write });
	if (stream == NULL)
		return errno;
	/* rte_log flushes after each message: a message is one write, as long as the buffer holds it. */
	setvbuf(stream, NULL, _IOFBF, 4096);
	return rte_openlog_stream(stream);
}

int dpdk_eal_init_quiet(int argc, char **argv, char *said, size_t room)
{
	said[0] = '\0';
	int capture = memfd_create("eal-output", MFD_CLOEXEC);
	int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
	fflush(stdout);
	fflush(stderr);
	real_stderr = err;
	if (capture >= 0 && out >= 0 && err >= 0) {
		dup2(capture, STDOUT_FILENO);
		dup2(capture, STDERR_FILENO);
	}
	int used = rte_eal_init(argc, argv);
	int reason = rte_errno;
	fflush(stdout);
	fflush(stderr);
	if (capture >= 0 && out >= 0 && err >= 0) {
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
	}
	real_stderr = -1;
	if (capture >= 0) {
		ssize_t n = pread(capture, said, room - 1, 0);
		said[n > 0 ? n : 0] = '\0';
		close(capture);
	}
	if (out >= 0)
		close(out);
	if (err >= 0)
		close(err);
	rte_errno = reason;
	return used;
}
