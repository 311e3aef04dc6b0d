// Compute codes of ops that need one code of each input for a code of the output, whole vectors at once.
//
// Op holds kZeroA (kZeroB), the zero points of what is read, and what clamp asks for: kZero, kLo, kHi of the output.
#ifndef HAWQ_POINTWISE
#define HAWQ_POINTWISE

namespace hawq {

// Return (value + 2^(shift-1)) >> shift: halves round up.
__device__ __forceinline__ long long rounding_shift(long long value, int shift) {
  return (value + (1LL << (shift - 1))) >> shift;
}

template <class Op, class T>
__device__ __forceinline__ int clamp(T scaled) {
  const T value = scaled + Op::kZero;
  return static_cast<int>(value < Op::kLo ? Op::kLo : value > Op::kHi ? Op::kHi : value);
}

// Return (code - zero) * multiplier; only accumulators can leave int32 on the way.
template <class X>
__device__ __forceinline__ long long product(const X& codes, int i, int zero, int multiplier) {
  if constexpr (X::kBits == 32) return (static_cast<long long>(codes[i]) - zero) * multiplier;
  else return static_cast<long long>(codes[i] - zero) * multiplier;
}

template <class Op, class Y, class A, class B>
__device__ __forceinline__ Y add(const A& a, const B& b, const int* multiplier, const int* shift) {
  const int to_a = multiplier[0], to_b = multiplier[1], s = shift[0];
  Y y;
#pragma unroll
  for (int i = 0; i < Y::kCount; ++i)
    y.put(i, clamp<Op>(rounding_shift(product(a, i, Op::kZeroA, to_a) + product(b, i, Op::kZeroB, to_b), s)));
  return y;
}

template <class Op, class Y, class A, class B>
__device__ __forceinline__ Y multiply(const A& a, const B& b, const int* multiplier, const int* shift) {
  const int m = multiplier[0], s = shift[0];
  Y y;
#pragma unroll
  for (int i = 0; i < Y::kCount; ++i)
    y.put(i, clamp<Op>(rounding_shift(static_cast<long long>((a[i] - Op::kZeroA) * (b[i] - Op::kZeroB)) * m, s)));
  return y;
}

// table: 256 codes, by the byte that holds the input.
template <class Op, class Y, class X>
__device__ __forceinline__ Y look_up(const X& x, const int* table) {
  Y y;
#pragma unroll
  for (int i = 0; i < Y::kCount; ++i) y.put(i, table[x[i] & 255]);
  return y;
}

template <class Op, class Y, class X>
__device__ __forceinline__ Y requantize(const X& x, const int* multiplier, const int* shift) {
  const int m = multiplier[0], s = shift[0];
  Y y;
#pragma unroll
  for (int i = 0; i < Y::kCount; ++i) y.put(i, clamp<Op>(rounding_shift(product(x, i, Op::kZeroA, m), s)));
  return y;
}

}  // namespace hawq
#endif
