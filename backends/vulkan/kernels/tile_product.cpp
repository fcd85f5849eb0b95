#include "backends/vulkan/kernels/tile_product.h"

#include <spirv/unified1/GLSL.std.450.h>

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

// A number modulo 2^32, as addresses are computed.
Value wrapped(Module& m, std::int64_t number) { return m.u32(static_cast<std::uint32_t>(number)); }

}  // namespace

Value axis_offset(const ViewAxis& axis, Value position) {
  Module& m = position.module();
  Value offset = m.u32(0), rest = position;
  for (std::size_t digit = axis.sizes.size(); digit-- > 0;) {
    Value here = rest;
    if (digit > 0) {
      const Split parts = split(rest, static_cast<std::uint32_t>(axis.sizes[digit]));
      here = parts.remainder;
      rest = parts.quotient;
    }
    offset = offset + here * wrapped(m, axis.strides[digit]);
  }
  return offset;
}

// ---- elements

FloatReader::FloatReader(Module& module, std::uint32_t binding, DType kept)
    : module_(&module), kept_(kept) {
  const bool wide = kept == DType::f32;
  elements_ = module.buffer(binding, wide ? F32 : U32);
  quads_ = module.buffer(binding, wide ? F32x4 : U32x2);
}

Value FloatReader::load(Value address) const {
  if (kept_ == DType::f32) return elements_.load(address);
  Module& m = *module_;
  const Value pair = elements_.load(address >> m.u32(1)), odd = address & m.u32(1);
  if (kept_ == DType::bf16) return bitcast(F32, (pair >> (odd << m.u32(4))) << m.u32(16));
  const Value both = m.extended(GLSLstd450UnpackHalf2x16, F32x2, {pair.id()});
  return select(odd == 0, part(both, 0), part(both, 1));
}

Value FloatReader::load_quad(Value address) const {
  Module& m = *module_;
  const Value loaded = quads_.load(address >> m.u32(2));
  if (kept_ == DType::f32) return loaded;
  std::array<Value, 4> four;
  for (std::uint32_t i = 0; i < 2; ++i) {
    const Value pair = part(loaded, i);
    if (kept_ == DType::bf16) {
      four[2 * i] = bitcast(F32, pair << m.u32(16));
      four[2 * i + 1] = bitcast(F32, pair & m.u32(0xffff0000u));
    } else {
      const Value both = m.extended(GLSLstd450UnpackHalf2x16, F32x2, {pair.id()});
      four[2 * i] = part(both, 0), four[2 * i + 1] = part(both, 1);
    }
  }
  return compose(four);
}

// ---- tiles

TileLoader::TileLoader(Module& module, const OperandView& view, std::uint32_t binding,
                       std::uint32_t strips, std::uint32_t depth)
    : module_(&module),
      view_(view),
      access_(view.access()),
      reader_(module, binding, view.kept),
      strips_(strips),
      depth_(depth) {
  Module& m = module;
  const std::uint32_t quads = strips / 4, steps = depth / inner_per_unit();
  const bool inner_first = access_ == TileAccess::along_inner ||
                           (access_ == TileAccess::single && view_.inner_is_nearer());
  const std::uint32_t threads = m.invocations();
  for (std::uint32_t first = 0; first < unit_count(); first += threads) {
    Value number = m.local_index() + m.u32(first);
    // Invocations too many read the last unit and store nothing.
    if (first + threads > unit_count()) number = min(number, m.u32(unit_count() - 1));
    const Split place = split(number, inner_first ? steps : quads);
    Unit unit;
    unit.quad = inner_first ? place.quotient : place.remainder;
    unit.inner = (inner_first ? place.remainder : place.quotient) * m.u32(inner_per_unit());
    units_.push_back(std::move(unit));
  }
}

void TileLoader::start(Value batch, Value first_strip) {
  Module& m = *module_;
  const ViewAxis& strips = view_.strips;
  const Value base = wrapped(m, view_.offset) + axis_offset(view_.batch, batch);
  const std::uint32_t at_once = access_ == TileAccess::along_strips ? 4 : 1;
  const bool whole = strips.size % strips_ == 0;
  for (Unit& unit : units_) {
    unit.strip_offsets.clear();
    const Value first = first_strip + unit.quad * m.u32(4);
    Value start_offset;
    for (std::uint32_t j = 0; j < 4; j += at_once) {
      if (j > 0 && whole && strips.is_affine()) {
        unit.strip_offsets.push_back(start_offset + wrapped(m, j * strips.stride()));
        continue;
      }
      Value strip = first + m.u32(j);
      if (!whole) strip = min(strip, wrapped(m, strips.size - at_once));
      Value offset = base + axis_offset(strips, strip);
      // What an affine inner axis adds is the same for all tiles.
      if (view_.inner.is_affine() && !has_tail())
        offset = offset + unit.inner * wrapped(m, view_.inner.stride());
      if (j == 0) start_offset = offset;
      unit.strip_offsets.push_back(offset);
    }
  }
}

Value TileLoader::inner_offset(Value first, Value within) const {
  Module& m = *module_;
  const ViewAxis& inner = view_.inner;
  if (has_tail())
    return axis_offset(inner, min(first + within, wrapped(m, inner.size - inner_per_unit())));
  if (inner.is_affine()) return first * wrapped(m, inner.stride());
  // If tiles don't straddle runs, most of the work is the same for all invocations.
  if (inner.run() % depth_ == 0)
    return axis_offset(inner, first) + within * wrapped(m, inner.stride());
  return axis_offset(inner, first + within);
}

std::vector<Value> TileLoader::fetch(Value first_inner) const {
  Module& m = *module_;
  std::vector<Value> fetched;
  for (const Unit& unit : units_) {
    const Value inner = inner_offset(first_inner, unit.inner);
    const Value valid =
        has_tail() ? first_inner + unit.inner < wrapped(m, view_.inner.size) : m.boolean(true);
    const auto kept = [&](Value element) { return select(valid, element, m.f32(0)); };
    const auto kept_quad = [&](Value quad) {
      if (!has_tail()) return quad;
      std::array<Value, 4> parts;
      for (std::uint32_t i = 0; i < 4; ++i) parts[i] = kept(part(quad, i));
      return compose(parts);
    };
    switch (access_) {
      case TileAccess::along_strips:
        fetched.push_back(kept_quad(reader_.load_quad(unit.strip_offsets[0] + inner)));
        break;
      case TileAccess::along_inner: {
        std::array<Value, 4> strips;
        for (std::uint32_t j = 0; j < 4; ++j)
          strips[j] = reader_.load_quad(unit.strip_offsets[j] + inner);
        for (std::uint32_t i = 0; i < 4; ++i) {
          std::array<Value, 4> quad;
          for (std::uint32_t j = 0; j < 4; ++j) quad[j] = kept(part(strips[j], i));
          fetched.push_back(compose(quad));
        }
        break;
      }
      case TileAccess::single: {
        std::array<Value, 4> quad;
        for (std::uint32_t j = 0; j < 4; ++j)
          quad[j] = kept(reader_.load(unit.strip_offsets[j] + inner));
        fetched.push_back(compose(quad));
        break;
      }
    }
  }
  return fetched;
}

void TileLoader::store(const SharedTile& tile, const std::vector<Value>& fetched) const {
  Module& m = *module_;
  const std::uint32_t threads = m.invocations();
  std::size_t next = 0;
  for (std::uint32_t u = 0; u < units_.size(); ++u) {
    const Unit& unit = units_[u];
    const auto store_unit = [&] {
      const Value at = tile.first + unit.inner * m.u32(tile.pitch_quads) + unit.quad;
      for (std::uint32_t i = 0; i < inner_per_unit(); ++i)
        tile.array.store(at + m.u32(i * tile.pitch_quads), fetched[next + i]);
    };
    if ((u + 1) * threads <= unit_count())
      store_unit();
    else
      m.if_then(m.local_index() < m.u32(unit_count() - u * threads), store_unit);
    next += inner_per_unit();
  }
}

// ---- products

ThreadGrid ThreadGrid::of(Module& module, std::uint32_t down, std::uint32_t across) {
  const Split place = split(module.local_index(), across);
  return {down, across, place.quotient, place.remainder};
}

Value RegisterShape::row(const ThreadGrid& grid, std::uint32_t i) const {
  Module& m = grid.y.module();
  return (grid.y + m.u32(i / 4 * grid.down)) * m.u32(4) + m.u32(i % 4);
}
Value RegisterShape::column(const ThreadGrid& grid, std::uint32_t j) const {
  Module& m = grid.x.module();
  return (grid.x + m.u32(j / 4 * grid.across)) * m.u32(4) + m.u32(j % 4);
}

Accumulators zero_accumulators(Module& module, std::size_t results, RegisterShape shape) {
  return Accumulators(results, std::vector<Value>(shape.elements(), module.f32(0)));
}

std::vector<Value> flattened(const Accumulators& sums) {
  std::vector<Value> all;
  for (const std::vector<Value>& each : sums) all.insert(all.end(), each.begin(), each.end());
  return all;
}
Accumulators unflattened(const std::vector<Value>& values, std::size_t results) {
  Accumulators sums(results);
  const std::size_t each = results > 0 ? values.size() / results : 0;
  for (std::size_t r = 0; r < results; ++r)
    sums[r].assign(values.begin() + static_cast<std::ptrdiff_t>(r * each),
                   values.begin() + static_cast<std::ptrdiff_t>((r + 1) * each));
  return sums;
}

Accumulators multiply_tiles(Module& module, std::span<const SharedTile> lhs,
                            std::span<const SharedTile> rhs, std::span<const TileTerm> terms,
                            const ThreadGrid& grid, RegisterShape shape, std::uint32_t depth,
                            std::uint32_t unroll, const Accumulators& sums) {
  Module& m = module;
  const bool precise = m.precise();
  m.set_precise(false);
  // Elements of a row or column of a shared tile that this invocation multiplies.
  const auto fragment = [&](const SharedTile& tile, Value first, std::uint32_t product,
                            std::uint32_t quads, std::uint32_t spread) {
    std::vector<Value> elements;
    for (std::uint32_t q = 0; q < quads; ++q) {
      const Value quad = tile.array.load(first + m.u32(product * tile.pitch_quads + q * spread));
      for (std::uint32_t i = 0; i < 4; ++i) elements.push_back(part(quad, i));
    }
    return elements;
  };
  const auto round = [&](Value first_product, const std::vector<Value>& carried) {
    Accumulators next = unflattened(carried, sums.size());
    std::vector<Value> lhs_first, rhs_first;
    for (const SharedTile& tile : lhs)
      lhs_first.push_back(tile.first + grid.y + first_product * m.u32(tile.pitch_quads));
    for (const SharedTile& tile : rhs)
      rhs_first.push_back(tile.first + grid.x + first_product * m.u32(tile.pitch_quads));
    for (std::uint32_t product = 0; product < unroll; ++product) {
      std::vector<std::vector<Value>> left, right;
      for (std::size_t i = 0; i < lhs.size(); ++i)
        left.push_back(fragment(lhs[i], lhs_first[i], product, shape.row_quads, grid.down));
      for (std::size_t i = 0; i < rhs.size(); ++i)
        right.push_back(fragment(rhs[i], rhs_first[i], product, shape.column_quads, grid.across));
      for (const TileTerm& term : terms)
        for (std::uint32_t i = 0; i < shape.rows(); ++i)
          for (std::uint32_t j = 0; j < shape.columns(); ++j) {
            Value& sum = next[term.result][i * shape.columns() + j];
            sum = left[term.lhs][i] * right[term.rhs][j] + sum;
          }
    }
    return flattened(next);
  };
  const std::vector<Value> result =
      depth == unroll ? round(m.u32(0), flattened(sums))
                      : m.loop(m.u32(0), m.u32(depth), unroll, flattened(sums), round, Unroll::no);
  m.set_precise(precise);
  return unflattened(result, sums.size());
}

}  // namespace fluxion::vulkan_backend
