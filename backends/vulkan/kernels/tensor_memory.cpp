#include "backends/vulkan/kernels/tensor_memory.h"

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

std::array<Value, 4> TensorMemory::load_four(Value index) const {
  std::array<Value, 4> values;
  const Value four = index >> 2;
  switch (size_of(kept_)) {
    case 1: {
      const Value word = module_.buffer(binding_, U32).load(four);
      for (std::uint32_t i = 0; i < 4; ++i) values[i] = from_memory((word >> (8 * i)) & 255);
      break;
    }
    case 2: {
      const Value words = module_.buffer(binding_, U32x2).load(four);
      for (std::uint32_t i = 0; i < 4; ++i) {
        const Value word = part(words, i / 2);
        values[i] = from_memory(i % 2 ? word >> 16 : word & 0xFFFF);
      }
      break;
    }
    default: {
      const Scalar scalar = memory_type(kept_).scalar;
      const Value elements = module_.buffer(binding_, {scalar, 4}).load(four);
      for (std::uint32_t i = 0; i < 4; ++i) {
        const Value element = part(elements, i);
        values[i] = from_memory(type_ == U32 ? bitcast(U32, element) : element);
      }
    }
  }
  return values;
}

void TensorMemory::store_four(Value index, const std::array<Value, 4>& values) const {
  std::array<Value, 4> kept;
  for (std::size_t i = 0; i < 4; ++i) kept[i] = to_memory(values[i]);
  const Value four = index >> 2;
  switch (size_of(kept_)) {
    case 1:
      return module_.buffer(binding_, U32)
          .store(four, kept[0] | (kept[1] << 8) | (kept[2] << 16) | (kept[3] << 24));
    case 2: {
      const std::array words{kept[0] | (kept[1] << 16), kept[2] | (kept[3] << 16)};
      return module_.buffer(binding_, U32x2).store(four, compose(words));
    }
    default:
      return module_.buffer(binding_, {memory_type(kept_).scalar, 4}).store(four, compose(kept));
  }
}

}  // namespace fluxion::vulkan_backend
