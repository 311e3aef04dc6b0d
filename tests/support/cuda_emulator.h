// Stand in for a GPU: the threads of a block are fibers of one thread, switched where they wait for each other.
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

using std::max;
using std::min;

namespace emulator {

struct Index {
  int x = 0, y = 0, z = 0;
};

constexpr int kMost = 256;  // threads of the blocks we launch
constexpr size_t kStack = 1 << 16;

struct Barrier {
  int waiting = 0, generation = 0;
};

inline Index thread_index, block_index;
inline ucontext_t scheduler, fibers[kMost];
inline bool done[kMost];
inline std::vector<char> stacks(kMost* kStack);
inline int current, threads;
inline Barrier block_barrier, warp_barriers[kMost / 32];
inline unsigned exchange[kMost / 32][32][16];
inline const char* rows[kMost / 32][32];
inline char* dynamic_shared;  // the kernel's, of the size it is launched with
inline bool eager;  // copies are done where they begin, instead of where the thread waits for them: both are allowed

struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool exists;
};

inline std::vector<std::vector<Copy>> groups[kMost];  // under way, the open one last

inline void wait(Barrier& barrier, int size) {
  const int generation = barrier.generation;
  if (++barrier.waiting == size) {
    barrier.waiting = 0;
    ++barrier.generation;
  }
  while (barrier.generation == generation) swapcontext(&fibers[current], &scheduler);
}

inline void wait_warp() { wait(warp_barriers[thread_index.x / 32], 32); }

template <class F>
F* body;

template <class F>
void enter() {
  (*body<F>)();
  done[current] = true;
  swapcontext(&fibers[current], &scheduler);
}

template <class F>
void run_block(F call) {
  body<F> = &call;
  block_barrier = {};
  for (Barrier& barrier : warp_barriers) barrier = {};
  for (auto& of_thread : groups) of_thread.assign(1, {});
  for (int i = 0; i < threads; ++i) {
    getcontext(&fibers[i]);
    fibers[i].uc_stack.ss_sp = stacks.data() + i * kStack;
    fibers[i].uc_stack.ss_size = kStack;
    fibers[i].uc_link = &scheduler;
    done[i] = false;
    makecontext(&fibers[i], enter<F>, 0);
  }
  for (int left = threads; left > 0;) {
    for (int i = 0; i < threads; ++i) {
      if (done[i]) continue;
      current = i;
      thread_index.x = i;
      swapcontext(&scheduler, &fibers[i]);
      left -= done[i];
    }
  }
}

inline ucontext_t before_grid;
inline volatile int fault;

inline void on_fault(int number) {
  fault = number;
  setcontext(&before_grid);
}

// Return 0, or the signal a thread stopped with: SIGSEGV beyond an argument, SIGILL or SIGTRAP where a sanitizer objects,
// SIGUSR1 where rows of a matrix share banks.
template <class F>
int run_grid(int grid_x, int grid_y, int block, void* shared, bool copies_are_eager, F call) {
  constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGUSR1};
  static struct sigaction before[6];
  struct sigaction action = {};
  action.sa_handler = on_fault;
  for (int i = 0; i < 6; ++i) sigaction(kSignals[i], &action, &before[i]);
  threads = block;
  dynamic_shared = static_cast<char*>(shared);
  eager = copies_are_eager;
  fault = 0;
  getcontext(&before_grid);
  if (fault == 0)
    for (block_index.y = 0; block_index.y < grid_y; ++block_index.y)
      for (block_index.x = 0; block_index.x < grid_x; ++block_index.x) run_block(call);
  for (int i = 0; i < 6; ++i) sigaction(kSignals[i], &before[i], nullptr);
  return fault;
}

// Multiply as the PTX specification lays fragments out: rows x 8 sums over `kWords` words of `kBits`-bit codes a row.
template <int kBits, bool kSignedA, int kRows, int kWords>
void mma(int* c, const unsigned* a, const unsigned* b) {
  const int warp = thread_index.x / 32, lane = thread_index.x % 32;
  auto& shared = exchange[warp];
  for (int i = 0; i < kRows / 8 * kWords / 4; ++i) shared[lane][i] = a[i];
  for (int i = 0; i < kWords / 4; ++i) shared[lane][8 + i] = b[i];
  wait_warp();
  auto code = [](unsigned word, int i, bool is_signed) {
    int value = (word >> (i * kBits)) & ((1 << kBits) - 1);
    return is_signed && value >> (kBits - 1) ? value - (1 << kBits) : value;
  };
  for (int r = 0; r < kRows / 8 * 2; ++r) {
    const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    unsigned sum = c[r];  // wraps like the hardware's int32
    for (int word = 0; word < kWords; ++word) {
      const unsigned x = shared[row % 8 * 4 + word % 4][word / 4 * (kRows / 8) + row / 8];
      const unsigned y = shared[column * 4 + word % 4][8 + word / 4];
      for (int i = 0; i < 32 / kBits; ++i) sum += code(x, i, kSignedA) * code(y, i, true);
    }
    c[r] = static_cast<int>(sum);
  }
  wait_warp();
}

inline void perform(const Copy& copy) {
  if (copy.exists) memcpy(copy.to, copy.from, copy.bytes); else memset(copy.to, 0, copy.bytes);
}

// Load four matrices of 8 rows x 16 bytes; the rows of each must lie in different banks.
inline void load_matrices(unsigned (&words)[4], const void* row) {
  const int warp = thread_index.x / 32, lane = thread_index.x % 32;
  rows[warp][lane] = static_cast<const char*>(row);
  wait_warp();
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned banks = 0;
    for (int i = 0; i < 8; ++i) banks |= 1u << (rows[warp][matrix * 8 + i] - dynamic_shared) / 16 % 8;
    if (banks != 255) raise(SIGUSR1);
    words[matrix] = reinterpret_cast<const unsigned*>(rows[warp][matrix * 8 + lane / 4])[lane % 4];
  }
  wait_warp();
}

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index

inline void __syncthreads() { emulator::wait(emulator::block_barrier, emulator::threads); }

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(both >> ((selector >> (i * 4) & 7) * 8) & 255) << (i * 8);
  return out;
}

struct alignas(16) int4 {
  int x, y, z, w;
};

struct alignas(8) int2 {
  int x, y;
};

namespace hawq {
using emulator::load_matrices;

template <int kBytes>
void begin_copy(void* to, const void* from, bool exists) {
  const emulator::Copy copy{to, from, kBytes, exists};
  if (emulator::eager || HAWQ_ARCH < 800)
    emulator::perform(copy);
  else
    emulator::groups[emulator::current].back().push_back(copy);
}

inline void end_group() { emulator::groups[emulator::current].emplace_back(); }

template <int kLeft>
void wait_groups() {
  auto& groups = emulator::groups[emulator::current];
  while (groups.size() > kLeft + 1) {  // the open one does not count
    for (const emulator::Copy& copy : groups.front()) emulator::perform(copy);
    groups.erase(groups.begin());
  }
}

#define EMULATE16(NAME, BITS, SIGNED) \
  inline void NAME(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emulator::mma<BITS, SIGNED, 16, 8>(c, a, b); }
#define EMULATE8(NAME, BITS, SIGNED)                              \
  inline void NAME(int& c0, int& c1, unsigned a, unsigned b) {    \
    int c[2] = {c0, c1};                                          \
    emulator::mma<BITS, SIGNED, 8, 4>(c, &a, &b);                 \
    c0 = c[0], c1 = c[1];                                         \
  }
EMULATE16(mma_m16n8k32_u8, 8, false)
EMULATE16(mma_m16n8k32_s8, 8, true)
EMULATE16(mma_m16n8k64_u4, 4, false)
EMULATE16(mma_m16n8k64_s4, 4, true)
EMULATE8(mma_m8n8k16_u8, 8, false)
EMULATE8(mma_m8n8k16_s8, 8, true)
EMULATE8(mma_m8n8k32_u4, 4, false)
EMULATE8(mma_m8n8k32_s4, 4, true)
}  // namespace hawq
