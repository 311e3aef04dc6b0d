// Turn int32 sums into codes: bias, requantization, clamp; and hand them on in vectors of channels.
//
// What becomes of them says store(codes, pixel, channel), which gets Codes of neighbouring channels: other ops may
// compute from them, in registers, before anything is written.
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
    return rounding_shift(product, shift);
}

// Make a sum the code of a channel. P holds kAccumulate, kHighShifts, kZero, kLo, kHi, and Y, the storage as Codes.
template <class P>
struct Requantize {
  static constexpr bool kScales = true;
  template <int kCount>
  using Y = typename P::template Y<kCount>;
  __device__ __forceinline__ int operator()(int sum, const Channel& channel) const {
    // unsigned: without the zero point in the sum each part may leave int32, and both wrap back together
    const int acc = static_cast<int>(static_cast<unsigned>(sum) + static_cast<unsigned>(channel.bias));
    if constexpr (P::kAccumulate) return acc;
    else return clamp<P>(dyadic<P::kHighShifts>(acc, channel.multiplier, channel.shift));
  }
};

// Make a sum itself the result, for another kernel to add up.
struct KeepSum {
  static constexpr bool kScales = false;
  template <int kCount>
  using Y = Codes<int, false, true, kCount>;
  __device__ __forceinline__ int operator()(int sum, const Channel&) const { return sum; }
};

// Store the sums of a block's tile, 16 pixels of every row of warps at a time: codes go to shared memory as the
// fragments hold them, and from there in vectors of kCodes channels. Tile says the shape; `code` is one of the functors above.
template <class Tile, int kCodes, class Code, class Store>
__device__ __forceinline__ void store_tile(const int (&sums)[Tile::kFragmentsM][Tile::kFragmentsN][4], char* shared,
                                           int first_pixel, int pixels, int first_channel, int stored,
                                           const Channels& constants, const Code& code, const Store& store) {
  using Pair = typename Code::template Y<2>;
  using Vector = typename Code::template Y<kCodes>;
  constexpr int kPitch = Tile::kTileN * Pair::kBits / 8 + 16;  // the 8 rows of a fragment hit different banks
  constexpr int kVectors = Tile::kTileN / kCodes, kSlab = Tile::kWarpsM * 16;
  static_assert(kSlab * kPitch + Tile::kTileN * 12 <= Tile::kSharedBytes, "a slab of the output fits where the operands were");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp / Tile::kWarpsN, warp_n = warp % Tile::kWarpsN;

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
        Pair codes;
#pragma unroll
        for (int i = 0; i < 2; ++i) codes.put(i, code(sums[m][n][r * 2 + i], channels[i]));
        codes.store(shared + (warp_m * 16 + r * 8 + lane / 4) * kPitch, o);
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kSlab * kVectors; i += Tile::kThreads) {
      const int row = i / kVectors, o = i % kVectors * kCodes;
      const int pixel = first_pixel + Tile::pixel(row / 16, m) + row % 16;
      if (pixel < pixels && first_channel + o < stored)
        store(Vector::load(shared + row * kPitch, o), pixel, first_channel + o);
    }
  }
}

// Add up the sums of all slices in their order and store the codes of 4 channels of a pixel in every thread.
// P holds kSlices, kPixels, kOutStored, kFinishThreads, and what Requantize asks for.
template <class P, class Store>
__device__ __forceinline__ void finish_slices(const int* slices, const Channels& constants, const Store& store) {
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
  typename P::template Y<4> codes;
#pragma unroll
  for (int i = 0; i < 4; ++i) codes.put(i, Requantize<P>()(static_cast<int>(sums[i]), constants[o + i]));
  store(codes, pixel, o);
}

}  // namespace hawq
#endif
