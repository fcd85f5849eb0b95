#include "backends/vulkan/kernels/tile_product.h"

#include <algorithm>

#include "backends/vulkan/spirv/math.h"
#include "engine/divide.h"

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
    : module_(&module), kept_(kept), binding_(binding) {
  const bool wide = kept == DType::f32;
  elements_ = module.buffer(binding, wide ? F32 : U32);
  quads_ = module.buffer(binding, wide ? F32x4 : U32x2);
}

Value FloatReader::load(Value address) const {
  if (kept_ == DType::f32) return elements_.load(address);
  Module& m = *module_;
  const Value pair = elements_.load(address >> m.u32(1)), odd = address & m.u32(1);
  if (kept_ == DType::bf16) return bitcast(F32, (pair >> (odd << m.u32(4))) << m.u32(16));
  if (!m.target().preserves_f16_subnormals) return from_f16(pair >> (odd << m.u32(4)));
  const std::array<Value, 2> both = from_f16_pair(pair);
  return select(odd == 0, both[0], both[1]);
}

Value FloatReader::quad_of(Value first, Value second) const {
  Module& m = *module_;
  std::array<Value, 4> four;
  for (std::uint32_t i = 0; i < 2; ++i) {
    const Value pair = i == 0 ? first : second;
    if (kept_ == DType::bf16) {
      four[2 * i] = bitcast(F32, pair << m.u32(16));
      four[2 * i + 1] = bitcast(F32, pair & m.u32(0xffff0000u));
    } else {
      const std::array<Value, 2> both = from_f16_pair(pair);
      four[2 * i] = both[0], four[2 * i + 1] = both[1];
    }
  }
  return compose(four);
}

Value FloatReader::load_quad(Value quad) const {
  const Value loaded = quads_.load(quad);
  return kept_ == DType::f32 ? loaded : quad_of(part(loaded, 0), part(loaded, 1));
}

std::array<Value, 2> FloatReader::load_eight(Value eight) const {
  const Value loaded = module_->buffer(binding_, U32x4).load(eight);
  return {quad_of(part(loaded, 0), part(loaded, 1)), quad_of(part(loaded, 2), part(loaded, 3))};
}

// ---- tiles

bool TileRequest::may_take_eights() const {
  if (size_of(view.kept) != 2) return false;
  const TileAccess access = view.access(8);
  return (access == TileAccess::along_strips && strips % 8 == 0) ||
         (access == TileAccess::along_inner && depth % 8 == 0);
}
std::uint32_t TileRequest::strips_per_unit() const {
  return eights && access() == TileAccess::along_strips ? 8 : 4;
}
std::uint32_t TileRequest::inner_per_unit() const {
  return access() == TileAccess::along_inner ? (eights ? 8 : 4) : 1;
}

TileLoader::TileLoader(Module& module, const TileRequest& request, std::uint32_t first_thread)
    : module_(&module),
      view_(request.view),
      access_(request.access()),
      reader_(module, request.binding, request.view.kept),
      eights_(request.eights),
      strips_(request.strips),
      depth_(request.depth),
      strips_per_unit_(request.strips_per_unit()),
      inner_per_unit_(request.inner_per_unit()),
      units_in_all_(request.units()),
      inner_first_(access_ == TileAccess::along_inner ||
                   (access_ == TileAccess::single && view_.inner_is_nearer())) {
  Module& m = module;
  const std::uint32_t extent = inner_first_ ? depth_ / inner_per_unit_ : strips_ / strips_per_unit_;
  const std::uint32_t threads = m.invocations();
  Split first_place{};
  for (std::uint32_t first = 0; first < units_in_all_; first += threads) {
    Split place;
    if (first > 0 && threads % extent == 0 && first + threads <= units_in_all_) {
      place = {first_place.quotient + m.u32(first / extent), first_place.remainder};
    } else {
      Value number = m.local_index() - m.u32(first_thread) + m.u32(first);
      // Invocations too many read the last unit and store nothing.
      if (first + threads > units_in_all_) number = min(number, m.u32(units_in_all_ - 1));
      place = split(number, extent);
      if (first == 0) first_place = place;
    }
    Unit unit;
    unit.quad = (inner_first_ ? place.quotient : place.remainder) * m.u32(strips_per_unit_ / 4);
    unit.inner = (inner_first_ ? place.remainder : place.quotient) * m.u32(inner_per_unit_);
    units_.push_back(std::move(unit));
  }
}

bool TileLoader::even_units() const {
  const std::uint32_t extent = inner_first_ ? depth_ / inner_per_unit_ : strips_ / strips_per_unit_;
  return even_quads() && view_.strips.is_affine() && view_.strips.size % strips_ == 0 &&
         view_.inner.is_affine() && !has_tail() && module_->invocations() % extent == 0 &&
         units_in_all_ % module_->invocations() == 0;
}

void TileLoader::start(Value batch, Value first_strip) {
  Module& m = *module_;
  const ViewAxis& strips = view_.strips;
  const Value base = wrapped(m, view_.offset) + axis_offset(view_.batch, batch);
  const bool whole = strips.size % strips_ == 0;
  const std::uint32_t extent = inner_first_ ? depth_ / inner_per_unit_ : strips_ / strips_per_unit_,
                      places = m.invocations() / extent;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    Unit& unit = units_[u];
    if (u > 0 && even_units()) {
      unit.offsets = units_[0].offsets;
      unit.shift = static_cast<std::int64_t>(u) * places *
                   (inner_first_ ? 4 * strips.stride() : inner_per_unit_ * view_.inner.stride());
      continue;
    }
    const Value first = first_strip + unit.quad * m.u32(4);
    for (std::uint32_t j = 0; j < (even_quads() ? 1 : 4); ++j) {
      Value strip = first + m.u32(j);
      if (!whole)
        strip = min(strip, wrapped(m, strips.size - (even_quads() ? strips_per_unit_ : 1)));
      Value offset = base + axis_offset(strips, strip);
      // What an affine inner axis adds is the same for all tiles.
      if (view_.inner.is_affine() && !has_tail())
        offset = offset + unit.inner * wrapped(m, view_.inner.stride());
      unit.offsets[j] = offset;
    }
  }
}

Value TileLoader::inner_offset(Value first, Value within) const {
  Module& m = *module_;
  const ViewAxis& inner = view_.inner;
  if (has_tail())
    return axis_offset(inner, min(first + within, wrapped(m, inner.size - inner_per_unit_)));
  if (inner.is_affine()) return first * wrapped(m, inner.stride());
  // If tiles don't straddle runs, most of the work is the same for all invocations.
  if (inner.run() % depth_ == 0)
    return axis_offset(inner, first) + within * wrapped(m, inner.stride());
  return axis_offset(inner, first + within);
}

std::vector<Value> TileLoader::fetch(Value first_inner) const {
  Module& m = *module_;
  std::vector<Value> fetched;
  const bool together = access_ != TileAccess::single;
  for (const Unit& unit : units_) {
    const Value inner = inner_offset(first_inner, unit.inner);
    const Value valid =
        has_tail() ? first_inner + unit.inner < wrapped(m, view_.inner.size) : m.boolean(true);
    const auto kept = [&](Value element) { return select(valid, element, m.f32(0)); };
    // Of strip j: its element, or four or eight neighbours.
    const auto load = [&](std::uint32_t j) {
      Value address = unit.offsets[even_quads() ? 0 : j] + inner;
      const std::int64_t shift = even_quads() ? unit.shift + j * view_.strips.stride() : 0;
      if (!together) return std::array{reader_.load(address + wrapped(m, shift)), Value{}};
      if (eights_) return reader_.load_eight((address >> m.u32(3)) + wrapped(m, shift / 8));
      return std::array{reader_.load_quad((address >> m.u32(2)) + wrapped(m, shift / 4)), Value{}};
    };
    switch (access_) {
      case TileAccess::along_strips: {
        const std::array<Value, 2> loaded = load(0);
        for (std::uint32_t q = 0; q < strips_per_unit_ / 4; ++q) {
          std::array<Value, 4> quad;
          for (std::uint32_t i = 0; i < 4; ++i) quad[i] = kept(part(loaded[q], i));
          fetched.push_back(has_tail() ? compose(quad) : loaded[q]);
        }
        break;
      }
      case TileAccess::along_inner: {
        std::array<std::array<Value, 2>, 4> strips;
        for (std::uint32_t j = 0; j < 4; ++j) strips[j] = load(j);
        for (std::uint32_t i = 0; i < inner_per_unit_; ++i) {
          std::array<Value, 4> quad;
          for (std::uint32_t j = 0; j < 4; ++j) quad[j] = kept(part(strips[j][i / 4], i % 4));
          fetched.push_back(compose(quad));
        }
        break;
      }
      case TileAccess::single: {
        std::array<Value, 4> quad;
        for (std::uint32_t j = 0; j < 4; ++j) quad[j] = kept(load(j)[0]);
        fetched.push_back(compose(quad));
        break;
      }
    }
  }
  return fetched;
}

void TileLoader::store(const SharedTile& tile, std::span<const Value> fetched, bool guarded) const {
  Module& m = *module_;
  const std::uint32_t threads = m.invocations(), quads = strips_per_unit_ / 4;
  std::size_t next = 0;
  for (std::uint32_t u = 0; u < units_.size(); ++u) {
    const Unit& unit = units_[u];
    const auto store_unit = [&] {
      const Value at = tile.first + unit.inner * m.u32(tile.pitch_quads) + unit.quad;
      for (std::uint32_t i = 0; i < inner_per_unit_; ++i)
        for (std::uint32_t q = 0; q < quads; ++q)
          tile.array.store(at + m.u32(i * tile.pitch_quads + q), fetched[next + i * quads + q]);
    };
    if ((u + 1) * threads <= units_in_all_ || !guarded)
      store_unit();
    else
      m.if_then(m.local_index() < m.u32(units_in_all_ - u * threads), store_unit);
    next += inner_per_unit_ * quads;
  }
}

TileSet::TileSet(Module& module, const std::vector<TileRequest>& requests)
    : module_(&module), requests_(requests) {
  const std::uint32_t threads = module.invocations();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    // Eights, unless that leaves invocations without work while others hold twice as much.
    TileRequest& request = requests_[i];
    request.eights =
        !module.target().short_code && request.may_take_eights() && request.units() >= threads;
    const std::uint32_t units = request.units(), quads = request.quads_per_unit();
    auto round = std::find_if(rounds_.begin(), rounds_.end(), [&](const Round& each) {
      return each.quads == quads && each.threads + units <= threads;
    });
    if (round == rounds_.end()) round = rounds_.insert(rounds_.end(), {{}, 0, quads});
    loaders_.emplace_back(module, request, round->threads);
    round->operands.push_back(i);
    round->threads += units;
  }
}

void TileSet::for_each_operand(const Round& round, bool strictly,
                               const std::function<void(std::size_t)>& body) const {
  Module& m = *module_;
  std::uint32_t end = 0;
  std::function<void(std::size_t)> emit_from = [&](std::size_t i) {
    const std::size_t operand = round.operands[i];
    end += requests_[operand].units();
    const Value inside = m.local_index() < m.u32(end);
    if (i + 1 < round.operands.size())
      m.if_else(
          inside, [&] { body(operand); }, [&] { emit_from(i + 1); });
    else if (strictly && i > 0 && end < m.invocations())
      m.if_then(inside, [&] { body(operand); });
    else
      body(operand);
  };
  emit_from(0);
}

std::vector<Value> TileSet::fetch(Value first_inner) const {
  Module& m = *module_;
  std::vector<Value> fetched;
  for (const Round& round : rounds_) {
    if (round.operands.size() == 1) {
      const std::vector<Value> quads = loaders_[round.operands.front()].fetch(first_inner);
      fetched.insert(fetched.end(), quads.begin(), quads.end());
      continue;
    }
    std::vector<Variable> quads;
    for (std::uint32_t i = 0; i < round.quads; ++i) quads.push_back(m.variable(F32x4));
    for_each_operand(round, false, [&](std::size_t operand) {
      const std::vector<Value> own = loaders_[operand].fetch(first_inner);
      for (std::size_t i = 0; i < own.size(); ++i) quads[i].set(own[i]);
    });
    for (const Variable& quad : quads) fetched.push_back(quad.get());
  }
  return fetched;
}

void TileSet::store(std::span<const SharedTile> tiles, std::span<const Value> fetched) const {
  for (const Round& round : rounds_) {
    const std::uint32_t threads = module_->invocations();
    const std::size_t units = round.operands.size() > 1
                                  ? 1
                                  : ceil_div(requests_[round.operands.front()].units(), threads);
    const std::span<const Value> own = fetched.first(units * round.quads);
    for_each_operand(round, true, [&](std::size_t operand) {
      loaders_[operand].store(tiles[operand], own, round.operands.size() == 1);
    });
    fetched = fetched.subspan(own.size());
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
