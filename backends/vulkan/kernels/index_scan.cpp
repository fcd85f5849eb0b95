// cumsum and argmax.
#include <algorithm>
#include <cmath>

#include "backends/vulkan/kernels/index_op.h"
#include "engine/divide.h"

namespace fluxion::vulkan_backend {

using spirv::SharedArray;
using spirv::Split;
using spirv::Value;

namespace {

constexpr std::int64_t longest_alone = 256;  // elements that one invocation sums

// A line in pieces of `piece` elements; the last may be shorter.
struct Pieces {
  AxisView x;
  std::int64_t piece, count;
  std::int64_t items() const { return x.lines() * count; }
};

// Item (outer, piece, inner): neighbours are neighbours in memory where there is an inner axis.
struct PieceOfLine {
  Value outer, number, inner, begin, end;
};
PieceOfLine piece_of(const Pieces& pieces, Value item) {
  const Split row = split(item, static_cast<std::uint32_t>(pieces.x.inner));
  const Split place = split(row.quotient, static_cast<std::uint32_t>(pieces.count));
  const Value begin = place.remainder * pieces.piece;
  return {place.quotient, place.remainder, row.remainder, begin,
          min(begin + static_cast<std::uint32_t>(pieces.piece), pieces.x.axis)};
}

// What the elements of a piece sum up to, and what rounding lost of it.
void sum_pieces(OpWork& work, const Pieces& pieces, spirv::Type type, DispatchBinding sums,
                DispatchBinding lost) {
  OpShader shader(work, "cumsum, pieces", Items{pieces.items()});
  spirv::Module& m = shader.module();
  const spirv::Buffer x = shader.reads(work.input(0), type), totals = shader.writes(sums, type),
                      rest = shader.writes(lost, type);
  shader.for_each_item([&](Value item) {
    const PieceOfLine piece = piece_of(pieces, item);
    RunningSum sum(m.constant(type, 0));
    m.for_range(piece.begin, piece.end, 1, [&](Value k) {
      sum.add(x.load(element_of(pieces.x, piece.outer, k, piece.inner)));
    });
    totals.store(item, sum.sum());
    if (type == spirv::F32) rest.store(item, sum.lost());
  });
  const auto elements = static_cast<double>(pieces.x.elements());
  shader.finish(elements, 4 * elements);
}

// From the sums of the pieces to the sums of all pieces before each.
void sum_before(OpWork& work, const Pieces& pieces, spirv::Type type, DispatchBinding sums,
                DispatchBinding lost, DispatchBinding sums_before, DispatchBinding lost_before) {
  const AxisView of_pieces{pieces.x.outer, pieces.count, pieces.x.inner};
  OpShader shader(work, "cumsum, before", Items{pieces.x.lines()});
  spirv::Module& m = shader.module();
  const spirv::Buffer from = shader.reads(sums, type), from_rest = shader.reads(lost, type),
                      to = shader.writes(sums_before, type),
                      to_rest = shader.writes(lost_before, type);
  shader.for_each_item([&](Value item) {
    const Split line = split(item, static_cast<std::uint32_t>(pieces.x.inner));
    RunningSum sum(m.constant(type, 0));
    m.for_range(m.u32(0), m.u32(static_cast<std::uint32_t>(pieces.count)), 1, [&](Value k) {
      const Value at = element_of(of_pieces, line.quotient, k, line.remainder);
      to.store(at, sum.sum());
      if (type == spirv::F32) {
        to_rest.store(at, sum.lost());
        sum.add(from.load(at), from_rest.load(at));
      } else {
        sum.add(from.load(at));
      }
    });
  });
  const auto items = static_cast<double>(pieces.items());
  shader.finish(items, 16 * items);
}

// A sum that began with 0 is never -0; but drivers may leave out the 0.
Value without_sign_of_zero(Value sum) {
  if (sum.type() != spirv::F32) return sum;
  const Value bits = bitcast(spirv::U32, sum);
  return bitcast(spirv::F32, select(bits == 0x80000000u, bits.module().u32(0), bits));
}

}  // namespace

// Inclusive. A long line is summed in pieces, then once more from the sums before them.
void lower_cumsum(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const spirv::Type type = work.computed(kernel.input_types[0].dtype);
  const AxisView x = axis_view(kernel.input_types[0].shape, axis_of(kernel));
  if (x.elements() == 0) return;
  Pieces pieces{x, x.axis, 1};
  DispatchBinding before, lost_before;
  if (x.axis > longest_alone) {
    pieces.piece = std::max<std::int64_t>(
        32, static_cast<std::int64_t>(std::sqrt(static_cast<double>(x.axis))));
    pieces.count = ceil_div(x.axis, pieces.piece);
    const DispatchBinding sums = work.scratch(pieces.items()), lost = work.scratch(pieces.items());
    before = work.scratch(pieces.items());
    lost_before = work.scratch(pieces.items());
    sum_pieces(work, pieces, type, sums, lost);
    sum_before(work, pieces, type, sums, lost, before, lost_before);
  }
  OpShader shader(work, "cumsum", Items{pieces.items()});
  spirv::Module& m = shader.module();
  const spirv::Buffer from = shader.reads(work.input(0), type),
                      to = shader.writes(work.output(), type);
  const bool starts = pieces.count > 1;
  const spirv::Buffer start = starts ? shader.reads(before, type) : spirv::Buffer(),
                      start_lost = starts ? shader.reads(lost_before, type) : spirv::Buffer();
  shader.for_each_item([&](Value item) {
    const PieceOfLine piece = piece_of(pieces, item);
    RunningSum sum = !starts              ? RunningSum(m.constant(type, 0))
                     : type == spirv::F32 ? RunningSum(start.load(item), start_lost.load(item))
                                          : RunningSum(start.load(item));
    m.for_range(piece.begin, piece.end, 1, [&](Value k) {
      const Value at = element_of(x, piece.outer, k, piece.inner);
      sum.add(from.load(at));
      to.store(at, without_sign_of_zero(sum.rounded()));
    });
  });
  const auto elements = static_cast<double>(x.elements());
  shader.finish(8 * elements, 8 * elements);
}

namespace {

// The first of the largest keys, and where it is.
struct Leader {
  spirv::Variable key, place;
  // Takes over what has a larger key; or an equal one, at a place before.
  void challenge(spirv::Module& m, Value other_key, Value other_place, bool in_order) const {
    Value wins = other_key > key.get();
    if (!in_order) wins = wins | ((other_key == key.get()) & (other_place < place.get()));
    m.if_then(wins, [&] {
      key.set(other_key);
      place.set(other_place);
    });
  }
};

}  // namespace

// The first maximum; the first NaN beats every number. One invocation reads a short line; a
// workgroup a long one.
void lower_argmax(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const DType dtype = kernel.input_types[0].dtype;
  work.computed(dtype);
  const AxisView x = axis_view(kernel.input_types[0].shape, axis_of(kernel));
  if (x.lines() == 0) return;
  const bool alone = x.axis <= 64 || x.lines() >= 4096;
  const std::uint32_t size = alone ? 1 : work.group_size();
  OpShader shader = alone ? OpShader(work, "argmax", Items{x.lines()})
                          : OpShader(work, "argmax of long lines", x.lines(), size);
  spirv::Module& m = shader.module();
  const spirv::Buffer values = shader.reads(work.input(0), spirv::U32),
                      result = shader.writes(work.output(), spirv::U32);
  // The first of the largest among elements first, first + size, ..
  const auto leader_of = [&](Value line, Value first) {
    const Split place = split(line, static_cast<std::uint32_t>(x.inner));
    const Leader leader{m.variable(m.u32(0)), m.variable(first)};
    m.for_range(first, m.u32(static_cast<std::uint32_t>(x.axis)), size, [&](Value k) {
      const Value bits = values.load(element_of(x, place.quotient, k, place.remainder));
      leader.challenge(m, ordered_key(dtype, bits), k, true);
    });
    return leader;
  };
  if (alone) {
    shader.for_each_item(
        [&](Value line) { result.store(line, leader_of(line, m.u32(0)).place.get()); });
  } else {
    const SharedArray keys = m.shared(spirv::U32, size), places = m.shared(spirv::U32, size);
    shader.for_each_group([&](Value line) {
      const Value lane = m.local_index();
      const Leader leader = leader_of(line, lane);
      keys.store(lane, leader.key.get());
      places.store(lane, leader.place.get());
      for (std::uint32_t half = size / 2; half > 0; half /= 2) {
        m.barrier();
        m.if_then(lane < half, [&] {
          leader.challenge(m, keys.load(lane + half), places.load(lane + half), false);
          keys.store(lane, leader.key.get());
          places.store(lane, leader.place.get());
        });
      }
      m.if_then(lane == 0, [&] { result.store(line, leader.place.get()); });
    });
  }
  const auto elements = static_cast<double>(x.elements());
  shader.finish(elements, 4 * elements);
}

}  // namespace fluxion::vulkan_backend
