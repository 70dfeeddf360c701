/*
 * DPDK's own reassembly (rte_ip_frag) under a flood of first fragments that nobody completes, beside datagrams of three
 * fragments that somebody means. benches/fragments.rs puts the same to ours. Prints, for each number of flood fragments
 * between two that are meant, what a fragment costs and how many datagrams came through.
 *
 *     gcc -O3 $(pkg-config --cflags libdpdk) benches/peers/fragments.c $(pkg-config --libs libdpdk) -o /tmp/fragments
 *     /tmp/fragments
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ip.h>
#include <rte_ip_frag.h>
#include <rte_mbuf.h>

#define DATAGRAMS 1024
#define MEANT 1000

static struct rte_mempool *pool;
static struct rte_ip_frag_tbl *table;
static struct rte_ip_frag_death_row dead;
static uint64_t added;

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e9 + at.tv_nsec;
}

/* One fragment of 16 bytes; 1 if it completes a datagram. */
static int add(uint32_t src, uint16_t id, uint16_t place)
{
	struct rte_mbuf *frame = rte_pktmbuf_alloc(pool);
	if (frame == NULL) {
		puts("no buffer left");
		return 0;
	}
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)rte_pktmbuf_append(frame, 36);
	if (ip == NULL)
		return 0;
	memset(ip, 0, 36);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16(36);
	ip->packet_id = rte_cpu_to_be_16(id);
	ip->fragment_offset = rte_cpu_to_be_16(place);
	ip->time_to_live = 64;
	ip->next_proto_id = 17;
	ip->src_addr = rte_cpu_to_be_32(src);
	ip->dst_addr = rte_cpu_to_be_32(0xc6120002);
	frame->l2_len = 0;
	frame->l3_len = 20;
	struct rte_mbuf *whole = rte_ipv4_frag_reassemble_packet(table, &dead, frame, rte_rdtsc(), ip);
	rte_ip_frag_free_death_row(&dead, 0);
	added++;
	rte_pktmbuf_free(whole);
	return whole != NULL;
}

int main(void)
{
	char *words[] = {"fragments", "--no-huge", "--no-shconf", "-m", "256", "--no-pci", "--log-level=3", "-l", "0"};
	if (rte_eal_init(9, words) < 0)
		return 1;
	pool = rte_pktmbuf_pool_create("frames", 16383, 256, 0, 512, SOCKET_ID_ANY);
	/* As large, with room for collisions: four times as many places as there may be datagrams. */
	table = rte_ip_frag_table_create(DATAGRAMS / 4, 16, DATAGRAMS, rte_get_tsc_hz() * 30, SOCKET_ID_ANY);
	if (pool == NULL || table == NULL)
		return 1;
	const int floods[] = {0, 10, 100, 300, 1000};
	uint32_t stranger = 0x0a000000;
	/* What is met for the first time is slower. */
	for (int n = 0; n < 3 * MEANT; n++)
		add(0xc6120003, n / 3, (const uint16_t[]){0x2000, 0x2002, 4}[n % 3]);
	for (size_t f = 0; f < sizeof(floods) / sizeof(floods[0]); f++) {
		int whole = 0;
		uint64_t before = added;
		double begun = now();
		for (int n = 0; n < MEANT; n++) {
			const uint16_t places[] = {0x2000, 0x2002, 4};
			for (int piece = 0; piece < 3; piece++) {
				whole += add(0xc6120001, n, places[piece]);
				for (int i = 0; i < floods[f]; i++)
					add(stranger++, 7, 0x2000);
			}
		}
		printf("%5d between two  %6.1f ns a fragment  %4d of %d datagrams whole\n", floods[f],
		       (now() - begun) / (added - before), whole, MEANT);
	}
	return 0;
}
