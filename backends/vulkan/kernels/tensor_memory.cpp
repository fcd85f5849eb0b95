#include "backends/vulkan/kernels/tensor_memory.h"

#include <bit>

#include "backends/vulkan/spirv/math.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

// ---- bindings

std::uint32_t ShaderBindings::add(const DispatchBinding& binding) {
  for (std::size_t i = 0; i < list_.size(); ++i) {
    if (list_[i].kind != binding.kind || list_[i].number != binding.number) continue;
    list_[i].reads = list_[i].reads || binding.reads;
    list_[i].writes = list_[i].writes || binding.writes;
    return static_cast<std::uint32_t>(i);
  }
  list_.push_back(binding);
  return static_cast<std::uint32_t>(list_.size() - 1);
}

std::uint32_t ShaderBindings::buffer(std::int32_t number, bool reads, bool writes) {
  const TensorType& type = context_.program.buffers[static_cast<std::size_t>(number)].type;
  const auto bytes = static_cast<std::int64_t>(bytes_of(type, context_.storage));
  return add({BindingKind::buffer, number, 0, (bytes + 3) / 4 * 4, reads, writes});
}

std::uint32_t ShaderBindings::scratch(std::int64_t bytes, bool reads, bool writes) {
  return add({BindingKind::scratch, 0, 0, (bytes + 3) / 4 * 4, reads, writes});
}

std::uint32_t ShaderBindings::scalars() {
  return add(
      {BindingKind::scalars, 0, 0, std::int64_t{16} * context_.program.scalars, true, false});
}

// ---- elements

namespace {

[[noreturn]] void refuse(DType dtype) {
  throw DTypeError("vulkan: " + std::string(to_string(dtype)) +
                   " has no kernels on this device; convert it on the host, or use the CPU");
}

}  // namespace

Type register_type(DType dtype) {
  switch (dtype) {
    case DType::boolean:
      return Bool;
    case DType::u8:
    case DType::u32:
      return U32;
    case DType::i32:
      return I32;
    case DType::bf16:
    case DType::f16:
    case DType::f32:
      return F32;
    case DType::i64:
    case DType::f64:
      break;
  }
  refuse(dtype);
}

TensorMemory::TensorMemory(Module& module, ShaderBindings& bindings, std::int32_t buffer,
                           bool reads, bool writes)
    : module_(module) {
  const LoweringContext& context = bindings.context();
  const TensorType& type = context.program.buffers[static_cast<std::size_t>(buffer)].type;
  dtype_ = type.dtype;
  kept_ = context.storage.kept(dtype_);
  type_ = register_type(dtype_);
  elements_ = type.shape.elements();
  binding_ = bindings.buffer(buffer, reads, writes);
  const bool supported = size_of(kept_) == 4 ||
                         (size_of(kept_) == 2 && module.target().storage_16) ||
                         (size_of(kept_) == 1 && module.target().storage_8);
  if (!supported) refuse(kept_);
}

// `kept` is u32, or of the 32-bit type in memory.
Value TensorMemory::from_memory(Value kept) const {
  if (kept_ == DType::bf16) return from_bf16(kept);
  if (kept_ == DType::f16) return from_f16(kept);
  if (dtype_ == DType::boolean) return kept != 0;
  return kept;
}

Value TensorMemory::to_memory(Value value) const {
  Module& m = module_;
  Value kept = value;
  switch (dtype_) {
    case DType::boolean:
      kept = select(convert_number(Bool, value), m.u32(1), m.u32(0));
      break;
    case DType::u8:
      kept = value.type() == F32 ? min(convert_number(U32, value), 255)
                                 : convert_number(U32, value) & 255;
      break;
    case DType::bf16:
      kept = to_bf16(convert_number(F32, value));
      return kept_ == DType::f32 ? from_bf16(kept) : kept;
    case DType::f16:
      kept = to_f16(convert_number(F32, value));
      return kept_ == DType::f32 ? from_f16(kept) : kept;
    default:
      return convert_number(type_, value);
  }
  return kept_ == DType::i32 ? bitcast(I32, kept) : kept;
}

namespace {

// Of a 32-bit element in memory.
Type memory_type(DType kept) { return kept == DType::f32 ? F32 : kept == DType::i32 ? I32 : U32; }

}  // namespace

Value TensorMemory::load(Value index) const {
  switch (size_of(kept_)) {
    case 1:
      return from_memory(convert(U32, module_.buffer(binding_, U8).load(index)));
    case 2:
      return from_memory(convert(U32, module_.buffer(binding_, U16).load(index)));
    default: {
      const Value element = module_.buffer(binding_, memory_type(kept_)).load(index);
      return from_memory(type_ == U32 ? bitcast(U32, element) : element);
    }
  }
}

void TensorMemory::store(Value index, Value value) const {
  const Value kept = to_memory(value);
  switch (size_of(kept_)) {
    case 1:
      return module_.buffer(binding_, U8).store(index, convert(U8, kept));
    case 2:
      return module_.buffer(binding_, U16).store(index, convert(U16, kept));
    default:
      return module_.buffer(binding_, memory_type(kept_)).store(index, kept);
  }
}

spirv::Buffer TensorMemory::vectors(std::size_t count) const {
  const std::size_t words = count * size_of(kept_) / 4;
  const Scalar scalar = size_of(kept_) == 4 ? memory_type(kept_).scalar : Scalar::u32;
  return module_.buffer(binding_, {scalar, static_cast<std::uint8_t>(words)});
}

void TensorMemory::load_many(Value index, std::span<Value> values) const {
  const auto count = static_cast<std::uint32_t>(values.size());
  const Value loaded =
      vectors(count).load(index >> static_cast<std::uint32_t>(std::countr_zero(count)));
  if (size_of(kept_) == 4) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const Value element = part(loaded, i);
      values[i] = from_memory(type_ == U32 ? bitcast(U32, element) : element);
    }
    return;
  }
  const auto bits = static_cast<std::uint32_t>(8 * size_of(kept_)), of_word = 32 / bits;
  for (std::uint32_t i = 0; i < count; ++i) {
    const Value word = count == of_word ? loaded : part(loaded, i / of_word);
    const std::uint32_t place = i % of_word;
    const Value shifted = place > 0 ? word >> (bits * place) : word;
    values[i] = from_memory(place + 1 < of_word ? shifted & ((1u << bits) - 1) : shifted);
  }
}

void TensorMemory::store_many(Value index, std::span<const Value> values) const {
  const auto count = static_cast<std::uint32_t>(values.size());
  const auto bits = static_cast<std::uint32_t>(8 * size_of(kept_)), of_word = 32 / bits;
  std::vector<Value> words;
  for (std::uint32_t i = 0; i < count; ++i) {
    const Value kept = to_memory(values[i]);
    if (i % of_word == 0)
      words.push_back(kept);
    else
      words.back() = words.back() | (kept << (bits * (i % of_word)));
  }
  vectors(count).store(index >> static_cast<std::uint32_t>(std::countr_zero(count)),
                       words.size() == 1 ? words[0] : compose(words));
}

}  // namespace fluxion::vulkan_backend
