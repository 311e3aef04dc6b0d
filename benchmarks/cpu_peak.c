/* Multiply-accumulate 8-bit integers in registers only: as fast as this core can.
 *
 * Accumulators do not depend on each other, and there are enough of them to hide the latency of the instruction
 * (4 to 5 cycles, two a cycle). Nothing is read from memory. Values do not matter to the speed of integers. */

#include <stdint.h>

#define REPEAT(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)

#if defined(__AVX512VNNI__)
#define NAME "vpdpbusd, 512 bits"
#define MACS 64
#define STEP(r) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #r "\n\t"
#elif defined(__AVXVNNI__)
#define NAME "vpdpbusd, 256 bits"
#define MACS 32
#define STEP(r) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #r "\n\t"
#elif defined(__AVX2__)
#define NAME "vpmaddwd and vpaddd, 256 bits"
#define MACS 16
#define STEP(r) "vpmaddwd %%ymm14, %%ymm15, %%ymm13\n\tvpaddd %%ymm13, %%ymm" #r ", %%ymm" #r "\n\t"
#else
#error "no loop for this CPU"
#endif

const char *instruction(void) { return NAME; }

/* Return the multiply-accumulates done. */
int64_t run(int64_t iterations)
{
    for (int64_t i = 0; i < iterations; ++i)
        __asm__ volatile(REPEAT(STEP)
                         ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                           "xmm11", "xmm13");
    return iterations * 12 * MACS;
}
