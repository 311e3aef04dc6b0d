// Turn int32 sums into stored codes: bias, requantization, clamp, and 16-byte stores by way of shared memory.
#ifndef HAWQ_EPILOGUE
#define HAWQ_EPILOGUE

namespace hawq {

// What is known of an output channel.
struct Channel {
  int bias, multiplier, shift;
};

// Where the constants of all channels lie.
struct Channels {
  const int *bias, *multiplier, *shift;
  __device__ __forceinline__ Channel operator[](int o) const { return {bias[o], multiplier[o], shift[o]}; }
};

// Return (value * multiplier + 2^(shift-1)) >> shift, in int64. kHighShifts says that every shift is at least 33: the
// upper words alone then hold the result.
template <bool kHighShifts>
__device__ __forceinline__ auto dyadic(int value, int multiplier, int shift) {
  const long long product = static_cast<long long>(value) * multiplier;
  if constexpr (kHighShifts)
    return static_cast<int>((product + (static_cast<long long>(1u << (shift - 33)) << 32)) >> 32) >> (shift - 32);
  else
    return (product + (1LL << (shift - 1))) >> shift;
}

// Make a sum the code of a pixel and channel. P holds kAccumulate, kHighShifts, kZero, kLo, kHi.
template <class P>
struct Requantize {
  static constexpr bool kScales = true;
  __device__ __forceinline__ int operator()(int sum, const Channel& channel, int pixel, int o) const {
    // unsigned: without the zero point in the sum each part may leave int32, and both wrap back together
    const int acc = static_cast<int>(static_cast<unsigned>(sum) + static_cast<unsigned>(channel.bias));
    if constexpr (P::kAccumulate) return acc;
    const auto value = dyadic<P::kHighShifts>(acc, channel.multiplier, channel.shift) + P::kZero;
    return static_cast<int>(value < P::kLo ? P::kLo : value > P::kHi ? P::kHi : value);
  }
};

// Make a sum itself what is stored, for another kernel to add up.
struct KeepSum {
  static constexpr bool kScales = false;
  __device__ __forceinline__ int operator()(int sum, const Channel&, int, int) const { return sum; }
};

// Codes in memory: two of 4 bits in a byte, the even channel in its low half, or one in an element of type T.
template <class T, bool kPacked>
struct Stored {
  static constexpr int kBits = kPacked ? 4 : 8 * sizeof(T);

  // Store the codes of channels o and o + 1 of a row, o even.
  static __device__ __forceinline__ void put(char* row, int o, int first, int second) {
    T* at = reinterpret_cast<T*>(row) + (kPacked ? o / 2 : o);
    if constexpr (kPacked) {
      *at = static_cast<T>((first & 15) | (second & 15) << 4);
    } else {
      at[0] = static_cast<T>(first), at[1] = static_cast<T>(second);
    }
  }
};

// Store the sums of a block's tile, 16 pixels of every row of warps at a time: codes go to shared memory as the
// fragments hold them, and to y in vectors of 16 bytes. Tile says the shape; `code` is one of the functors above.
template <class Tile, class Memory, class Code>
__device__ __forceinline__ void store_tile(const int (&sums)[Tile::kFragmentsM][Tile::kFragmentsN][4], char* shared,
                                           int first_pixel, int pixels, int first_channel, int stored,
                                           const Channels& constants, const Code& code, void* y) {
  constexpr int kRow = Tile::kTileN * Memory::kBits / 8;
  constexpr int kPitch = kRow + 16;  // the 8 rows of a fragment hit different banks
  constexpr int kVectors = kRow / 16, kSlab = Tile::kWarpsM * 16;
  static_assert(kSlab * kPitch + Tile::kTileN * 12 <= Tile::kSharedBytes, "a slab of the output fits where the operands were");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp / Tile::kWarpsN, warp_n = warp % Tile::kWarpsN;
  const int row_bytes = stored * Memory::kBits / 8, first_byte = first_channel * Memory::kBits / 8;

  // constants wait in shared memory: in registers those of 16 channels would push sums out
  int* table = reinterpret_cast<int*>(shared + kSlab * kPitch);
  __syncthreads();  // the operands have been read
  if constexpr (Code::kScales) {
    for (int o = threadIdx.x; o < Tile::kTileN; o += Tile::kThreads) {
      const Channel channel = constants[first_channel + o];
      table[o] = channel.bias, table[Tile::kTileN + o] = channel.multiplier, table[2 * Tile::kTileN + o] = channel.shift;
    }
  }
#pragma unroll
  for (int m = 0; m < Tile::kFragmentsM; ++m) {
    __syncthreads();  // the table is written, the slab before has been read
#pragma unroll
    for (int n = 0; n < Tile::kFragmentsN; ++n) {
      const int o = Tile::channel(warp_n, lane, n);
      Channel channels[2] = {};
      if constexpr (Code::kScales) {
#pragma unroll
        for (int i = 0; i < 2; ++i)
          channels[i] = {table[o + i], table[Tile::kTileN + o + i], table[2 * Tile::kTileN + o + i]};
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = r * 8 + lane / 4, pixel = first_pixel + Tile::pixel(warp_m, m) + row;
        int codes[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          codes[i] = code(sums[m][n][r * 2 + i], channels[i], pixel, first_channel + o + i);
        Memory::put(shared + (warp_m * 16 + row) * kPitch, o, codes[0], codes[1]);
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kSlab * kVectors; i += Tile::kThreads) {
      const int row = i / kVectors, byte = i % kVectors * 16;
      const int pixel = first_pixel + Tile::pixel(row / 16, m) + row % 16;
      if (pixel < pixels && first_byte + byte < row_bytes) {
        char* to = static_cast<char*>(y) + static_cast<long long>(pixel) * row_bytes + first_byte + byte;
        *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(shared + row * kPitch + byte);
      }
    }
  }
}

// Add up the sums of all slices in their order and store the codes of 4 channels of a pixel in every thread.
// P holds kSlices, kPixels, kOutStored, Out, kPackOut, and what Requantize asks for.
template <class P>
__device__ __forceinline__ void finish_slices(const int* slices, const Channels& constants, void* y) {
  using Memory = Stored<typename P::Out, P::kPackOut>;
  constexpr int kVectors = P::kOutStored / 4;
  const int index = blockIdx.x * P::kFinishThreads + threadIdx.x;
  if (index >= P::kPixels * kVectors) return;
  const int pixel = index / kVectors, o = index % kVectors * 4;
  unsigned sums[4] = {};
#pragma unroll
  for (int slice = 0; slice < P::kSlices; ++slice) {
    const int4 part = reinterpret_cast<const int4*>(slices)[slice * P::kPixels * kVectors + index];
    sums[0] += part.x, sums[1] += part.y, sums[2] += part.z, sums[3] += part.w;
  }
  const Requantize<P> code;
  int codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) codes[i] = code(static_cast<int>(sums[i]), constants[o + i], pixel, o + i);
  char* row = static_cast<char*>(y) + static_cast<long long>(pixel) * (P::kOutStored * Memory::kBits / 8);
  Memory::put(row, o, codes[0], codes[1]);
  Memory::put(row, o + 2, codes[2], codes[3]);
}

}  // namespace hawq
#endif
