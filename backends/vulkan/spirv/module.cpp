#include "backends/vulkan/spirv/module.h"

#include <spirv/unified1/GLSL.std.450.h>

#include <algorithm>

namespace fluxion::vulkan_backend::spirv {

namespace {

constexpr std::uint32_t spirv_1_3 = 0x00010300;

std::uint32_t number(auto enumerator) { return static_cast<std::uint32_t>(enumerator); }

// A string as words: UTF-8, four bytes a word, ended by a zero byte.
std::vector<std::uint32_t> string_words(const std::string& text) {
  std::vector<std::uint32_t> words(text.size() / 4 + 1);
  for (std::size_t i = 0; i < text.size(); ++i)
    words[i / 4] |= static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])) << (i % 4 * 8);
  return words;
}

}  // namespace

std::uint32_t Type::bytes() const {
  const std::uint32_t size = scalar == Scalar::u8                             ? 1
                             : scalar == Scalar::u16 || scalar == Scalar::f16 ? 2
                                                                              : 4;
  return size * components;
}

// ---- memory

Value Buffer::load(Value index) const {
  return module_->load(element_, module_->element_pointer(spv::StorageClass::StorageBuffer,
                                                          variable_, element_, index));
}
void Buffer::store(Value index, Value value) const {
  module_->written_.insert(variable_);
  module_->store(
      module_->element_pointer(spv::StorageClass::StorageBuffer, variable_, element_, index),
      value);
}
Value Buffer::atomic_add(Value index, Value value) const {
  module_->written_.insert(variable_);
  return module_->atomic_add(
      spv::StorageClass::StorageBuffer,
      module_->element_pointer(spv::StorageClass::StorageBuffer, variable_, element_, index),
      value);
}

Value SharedArray::load(Value index) const {
  return module_->load(
      element_, module_->element_pointer(spv::StorageClass::Workgroup, variable_, element_, index));
}
void SharedArray::store(Value index, Value value) const {
  module_->store(module_->element_pointer(spv::StorageClass::Workgroup, variable_, element_, index),
                 value);
}
Value SharedArray::atomic_add(Value index, Value value) const {
  return module_->atomic_add(
      spv::StorageClass::Workgroup,
      module_->element_pointer(spv::StorageClass::Workgroup, variable_, element_, index), value);
}

Value Variable::get() const { return module_->load(type_, id_); }
void Variable::set(Value value) const { module_->store(id_, value); }

// ---- module

Module::Module(const ShaderTarget& target, std::string name,
               std::array<std::uint32_t, 3> local_size)
    : target_(target), name_(std::move(name)), local_size_(local_size) {
  glsl_ = new_id();
  main_ = new_id();
  entry_ = block_ = new_id();
  require(spv::Capability::Shader);
  if (target_.preserves_special_values) {
    require("SPV_KHR_float_controls");
    require(spv::Capability::SignedZeroInfNanPreserve);
  }
}

void Module::append(Words& words, spv::Op op, std::span<const std::uint32_t> operands) {
  words.push_back(static_cast<std::uint32_t>(operands.size() + 1) << 16 | number(op));
  words.insert(words.end(), operands.begin(), operands.end());
}

void Module::require(spv::Capability capability) { capabilities_[number(capability)] = true; }
void Module::require(const std::string& extension) { extensions_[extension] = true; }

std::uint32_t Module::declare(spv::Op op, std::vector<std::uint32_t> operands, std::size_t result) {
  std::vector<std::uint32_t> key = operands;
  key.push_back(number(op));
  const auto found = declared_.find(key);
  if (found != declared_.end()) return found->second;
  const std::uint32_t id = new_id();
  operands[result] = id;
  append(globals_, op, operands);
  declared_.emplace(std::move(key), id);
  return id;
}

void Module::decorate(std::initializer_list<std::uint32_t> target_and_decoration) {
  append(decorations_, spv::Op::OpDecorate,
         {target_and_decoration.begin(), target_and_decoration.size()});
}

std::uint32_t Module::type_id(Type type) {
  if (type.components > 1)
    return declare(spv::Op::OpTypeVector, {0, type_id(type.element()), type.components}, 0);
  switch (type.scalar) {
    case Scalar::boolean:
      return declare(spv::Op::OpTypeBool, {0}, 0);
    case Scalar::u8:
      return declare(spv::Op::OpTypeInt, {0, 8, 0}, 0);
    case Scalar::u16:
      return declare(spv::Op::OpTypeInt, {0, 16, 0}, 0);
    case Scalar::u32:
      return declare(spv::Op::OpTypeInt, {0, 32, 0}, 0);
    case Scalar::i32:
      return declare(spv::Op::OpTypeInt, {0, 32, 1}, 0);
    case Scalar::f16:
      return declare(spv::Op::OpTypeFloat, {0, 16}, 0);
    case Scalar::f32:
      return declare(spv::Op::OpTypeFloat, {0, 32}, 0);
  }
  return 0;
}

std::uint32_t Module::pointer_type(spv::StorageClass storage, std::uint32_t type) {
  return declare(spv::Op::OpTypePointer, {0, number(storage), type}, 0);
}

Value Module::constant(Type type, std::uint32_t bits) {
  const std::uint32_t scalar_type = type_id(type.element());
  std::uint32_t id = 0;
  if (type.scalar == Scalar::boolean)
    id = declare(bits ? spv::Op::OpConstantTrue : spv::Op::OpConstantFalse, {scalar_type, 0}, 1);
  else
    id = declare(spv::Op::OpConstant, {scalar_type, 0, bits}, 1);
  if (type.components == 1) return {*this, type, id, bits};
  std::vector<std::uint32_t> parts{type_id(type), 0};
  parts.insert(parts.end(), type.components, id);
  return {*this, type, declare(spv::Op::OpConstantComposite, std::move(parts), 1)};
}

Value Module::u32(std::uint32_t value) { return constant(U32, value); }
Value Module::i32(std::int32_t value) { return constant(I32, static_cast<std::uint32_t>(value)); }
Value Module::f32(float value) { return constant(F32, std::bit_cast<std::uint32_t>(value)); }
Value Module::boolean(bool value) { return constant(Bool, value ? 1 : 0); }

Buffer Module::buffer(std::uint32_t binding, Type element) {
  bindings_ = std::max(bindings_, binding + 1);
  std::uint32_t& block = block_types_[element];
  if (!block) {
    if (element.scalar == Scalar::u16 || element.scalar == Scalar::f16)
      require(spv::Capability::StorageBuffer16BitAccess);
    if (element.scalar == Scalar::u8) {
      require("SPV_KHR_8bit_storage");
      require(spv::Capability::StorageBuffer8BitAccess);
    }
    const std::uint32_t type = type_id(element), array = new_id();
    block = new_id();
    append(globals_, spv::Op::OpTypeRuntimeArray, std::array{array, type});
    append(globals_, spv::Op::OpTypeStruct, std::array{block, array});
    decorate({array, number(spv::Decoration::ArrayStride), element.bytes()});
    decorate({block, number(spv::Decoration::Block)});
    append(decorations_, spv::Op::OpMemberDecorate,
           std::array<std::uint32_t, 4>{block, 0, number(spv::Decoration::Offset), 0});
  }
  std::uint32_t& variable = buffers_[{binding, element}];
  if (!variable) {
    variable = new_id();
    append(globals_, spv::Op::OpVariable,
           std::array{pointer_type(spv::StorageClass::StorageBuffer, block), variable,
                      number(spv::StorageClass::StorageBuffer)});
    decorate({variable, number(spv::Decoration::DescriptorSet), 0});
    decorate({variable, number(spv::Decoration::Binding), binding});
    // Bindings may be the same memory: the views of one binding are, and outputs may take over
    // inputs.
    decorate({variable, number(spv::Decoration::Aliased)});
  }
  return {*this, variable, element};
}

SharedArray Module::shared(Type element, std::uint32_t size) {
  const std::uint32_t array =
      declare(spv::Op::OpTypeArray, {0, type_id(element), u32(size).id()}, 0);
  const std::uint32_t variable = new_id();
  append(globals_, spv::Op::OpVariable,
         std::array{pointer_type(spv::StorageClass::Workgroup, array), variable,
                    number(spv::StorageClass::Workgroup)});
  return {*this, variable, element, size};
}

Variable Module::variable(Type type) {
  const std::uint32_t id = new_id();
  append(variables_, spv::Op::OpVariable,
         std::array{pointer_type(spv::StorageClass::Function, type_id(type)), id,
                    number(spv::StorageClass::Function)});
  return {*this, id, type};
}

Variable Module::variable(Value initial) {
  const Variable result = variable(initial.type());
  result.set(initial);
  return result;
}

Value Module::push_constant(std::uint32_t word) {
  if (!push_block_) push_block_ = new_id();
  push_words_ = std::max(push_words_, word + 1);
  const std::uint32_t pointer = new_id();
  append(body_, spv::Op::OpAccessChain,
         std::array{pointer_type(spv::StorageClass::PushConstant, type_id(U32)), pointer,
                    push_block_, u32(word).id()});
  return load(U32, pointer);
}

std::uint32_t Module::element_pointer(spv::StorageClass storage, std::uint32_t variable,
                                      Type element, Value index) {
  const std::uint32_t type = pointer_type(storage, type_id(element)), pointer = new_id();
  if (storage == spv::StorageClass::StorageBuffer)
    append(body_, spv::Op::OpAccessChain,
           std::array{type, pointer, variable, u32(0).id(), index.id()});
  else
    append(body_, spv::Op::OpAccessChain, std::array{type, pointer, variable, index.id()});
  return pointer;
}

Value Module::load(Type type, std::uint32_t pointer) {
  return emit(spv::Op::OpLoad, type, {pointer});
}

void Module::store(std::uint32_t pointer, Value value) {
  emit(spv::Op::OpStore, {pointer, value.id()});
}

Value Module::atomic_add(spv::StorageClass storage, std::uint32_t pointer, Value value) {
  const std::uint32_t scope = storage == spv::StorageClass::Workgroup
                                  ? number(spv::Scope::Workgroup)
                                  : number(spv::Scope::Device);
  return emit(spv::Op::OpAtomicIAdd, value.type(),
              {pointer, u32(scope).id(), u32(0).id(), value.id()});
}

// ---- built-in inputs

Value Module::built_in(spv::BuiltIn which, Type type) {
  const auto found = built_ins_.find(number(which));
  if (found != built_ins_.end()) return found->second;
  const std::uint32_t variable = new_id(), id = new_id();
  append(globals_, spv::Op::OpVariable,
         std::array{pointer_type(spv::StorageClass::Input, type_id(type)), variable,
                    number(spv::StorageClass::Input)});
  decorate({variable, number(spv::Decoration::BuiltIn), number(which)});
  interface_.push_back(variable);
  append(prologue_, spv::Op::OpLoad, std::array{type_id(type), id, variable});
  return built_ins_.emplace(number(which), Value(*this, type, id)).first->second;
}

Value Module::built_in_part(spv::BuiltIn which, std::uint32_t axis) {
  const auto key = std::pair(number(which), axis);
  const auto found = built_in_parts_.find(key);
  if (found != built_in_parts_.end()) return found->second;
  const Value all = built_in(which, U32x3);
  const std::uint32_t id = new_id();
  append(prologue_, spv::Op::OpCompositeExtract, std::array{type_id(U32), id, all.id(), axis});
  return built_in_parts_.emplace(key, Value(*this, U32, id)).first->second;
}

Value Module::workgroup_id(std::uint32_t axis) {
  return built_in_part(spv::BuiltIn::WorkgroupId, axis);
}
Value Module::local_id(std::uint32_t axis) {
  return built_in_part(spv::BuiltIn::LocalInvocationId, axis);
}
Value Module::local_index() { return built_in(spv::BuiltIn::LocalInvocationIndex, U32); }
Value Module::global_id(std::uint32_t axis) {
  return built_in_part(spv::BuiltIn::GlobalInvocationId, axis);
}
Value Module::subgroup_size() {
  require(spv::Capability::GroupNonUniform);
  return built_in(spv::BuiltIn::SubgroupSize, U32);
}
Value Module::subgroup_lane() {
  require(spv::Capability::GroupNonUniform);
  return built_in(spv::BuiltIn::SubgroupLocalInvocationId, U32);
}
Value Module::subgroup_id() {
  require(spv::Capability::GroupNonUniform);
  return built_in(spv::BuiltIn::SubgroupId, U32);
}
Value Module::subgroup_count() {
  require(spv::Capability::GroupNonUniform);
  return built_in(spv::BuiltIn::NumSubgroups, U32);
}

// ---- control flow

void Module::label(std::uint32_t id) {
  emit(spv::Op::OpLabel, {id});
  block_ = id;
}

void Module::branch(std::uint32_t label) { emit(spv::Op::OpBranch, {label}); }

void Module::if_then(Value condition, const Body& then) { if_else(condition, then, nullptr); }

void Module::if_else(Value condition, const Body& then, const Body& otherwise) {
  if (condition.known()) {
    if (*condition.known())
      then();
    else if (otherwise)
      otherwise();
    return;
  }
  const std::uint32_t yes = new_id(), merge = new_id(), no = otherwise ? new_id() : merge;
  emit(spv::Op::OpSelectionMerge, {merge, 0});
  emit(spv::Op::OpBranchConditional, {condition.id(), yes, no});
  label(yes);
  then();
  branch(merge);
  if (otherwise) {
    label(no);
    otherwise();
    branch(merge);
  }
  label(merge);
}

Value Module::choose(Value condition, const std::function<Value()>& then,
                     const std::function<Value()>& otherwise) {
  if (condition.known()) return *condition.known() ? then() : otherwise();
  const std::uint32_t yes = new_id(), no = new_id(), merge = new_id();
  emit(spv::Op::OpSelectionMerge, {merge, 0});
  emit(spv::Op::OpBranchConditional, {condition.id(), yes, no});
  label(yes);
  const Value a = then();
  const std::uint32_t from_a = block_;
  branch(merge);
  label(no);
  const Value b = otherwise();
  const std::uint32_t from_b = block_;
  branch(merge);
  label(merge);
  return emit(spv::Op::OpPhi, a.type(), {a.id(), from_a, b.id(), from_b});
}

void Module::for_range(Value first, Value end, std::uint32_t step,
                       const std::function<void(Value)>& body, Unroll unroll) {
  loop(
      first, end, step, {},
      [&](Value i, const std::vector<Value>&) {
        body(i);
        return std::vector<Value>{};
      },
      unroll);
}

std::vector<Value> Module::loop(
    Value first, Value end, std::uint32_t step, std::vector<Value> carried,
    const std::function<std::vector<Value>(Value, const std::vector<Value>&)>& body,
    Unroll unroll) {
  if (first.known() && end.known() && (first < end).is(0)) return carried;
  const std::uint32_t header = new_id(), test = new_id(), inside = new_id(), next = new_id(),
                      merge = new_id(), before = block_;
  branch(header);
  label(header);
  // The values of the next round are not known yet: their ids are written here later.
  std::vector<std::size_t> open;
  std::vector<Value> values;
  const auto begin_with = [&](Value initial) {
    values.push_back(emit(spv::Op::OpPhi, initial.type(), {initial.id(), before, 0, next}));
    open.push_back(body_.size() - 2);
  };
  begin_with(first);
  for (const Value& initial : carried) begin_with(initial);
  const Value i = values.front();
  values.erase(values.begin());
  emit(spv::Op::OpLoopMerge, {merge, next,
                              unroll == Unroll::yes  ? 1u
                              : unroll == Unroll::no ? 2u
                                                     : 0u});
  branch(test);
  label(test);
  emit(spv::Op::OpBranchConditional, {(i < end).id(), inside, merge});
  label(inside);
  loops_.push_back({merge});
  const std::vector<Value> last = body(i, values);
  loops_.pop_back();
  branch(next);
  label(next);
  body_[open[0]] = (i + constant(i.type(), step)).id();
  for (std::size_t k = 0; k < values.size(); ++k) body_[open[k + 1]] = last[k].id();
  branch(header);
  label(merge);
  return values;
}

void Module::while_true(const std::function<Value()>& condition, const Body& body) {
  const std::uint32_t header = new_id(), test = new_id(), inside = new_id(), next = new_id(),
                      merge = new_id();
  branch(header);
  label(header);
  emit(spv::Op::OpLoopMerge, {merge, next, 0});
  branch(test);
  label(test);
  emit(spv::Op::OpBranchConditional, {condition().id(), inside, merge});
  label(inside);
  loops_.push_back({merge});
  body();
  loops_.pop_back();
  branch(next);
  label(next);
  branch(header);
  label(merge);
}

void Module::break_if(Value condition) {
  if (condition.is(0)) return;
  const std::uint32_t leave = new_id(), stay = new_id();
  emit(spv::Op::OpSelectionMerge, {stay, 0});
  emit(spv::Op::OpBranchConditional, {condition.id(), leave, stay});
  label(leave);
  branch(loops_.back().merge);
  label(stay);
}

void Module::barrier(bool buffers) {
  const std::uint32_t semantics = number(spv::MemorySemanticsMask::AcquireRelease) |
                                  number(spv::MemorySemanticsMask::WorkgroupMemory) |
                                  (buffers ? number(spv::MemorySemanticsMask::UniformMemory) : 0);
  const std::uint32_t workgroup = u32(number(spv::Scope::Workgroup)).id();
  emit(spv::Op::OpControlBarrier, {workgroup, workgroup, u32(semantics).id()});
}

// ---- subgroups

Value Module::subgroup_operation(SubgroupReduction reduction, spv::GroupOperation operation,
                                 Value value) {
  require(spv::Capability::GroupNonUniform);
  require(spv::Capability::GroupNonUniformArithmetic);
  const Scalar scalar = value.type().scalar;
  const auto pick = [&](spv::Op of_float, spv::Op of_signed, spv::Op of_unsigned) {
    return scalar == Scalar::f32 ? of_float : scalar == Scalar::i32 ? of_signed : of_unsigned;
  };
  const spv::Op op = reduction == SubgroupReduction::add
                         ? pick(spv::Op::OpGroupNonUniformFAdd, spv::Op::OpGroupNonUniformIAdd,
                                spv::Op::OpGroupNonUniformIAdd)
                     : reduction == SubgroupReduction::min
                         ? pick(spv::Op::OpGroupNonUniformFMin, spv::Op::OpGroupNonUniformSMin,
                                spv::Op::OpGroupNonUniformUMin)
                         : pick(spv::Op::OpGroupNonUniformFMax, spv::Op::OpGroupNonUniformSMax,
                                spv::Op::OpGroupNonUniformUMax);
  return emit(op, value.type(),
              {u32(number(spv::Scope::Subgroup)).id(), number(operation), value.id()});
}

Value Module::subgroup_reduce(SubgroupReduction reduction, Value value) {
  return subgroup_operation(reduction, spv::GroupOperation::Reduce, value);
}
Value Module::subgroup_inclusive_scan(SubgroupReduction reduction, Value value) {
  return subgroup_operation(reduction, spv::GroupOperation::InclusiveScan, value);
}
Value Module::subgroup_exclusive_scan(SubgroupReduction reduction, Value value) {
  return subgroup_operation(reduction, spv::GroupOperation::ExclusiveScan, value);
}

// ---- instructions and the end

Value Module::emit(spv::Op op, Type type, std::initializer_list<std::uint32_t> operands,
                   bool arithmetic) {
  std::vector<std::uint32_t> words{type_id(type), new_id()};
  words.insert(words.end(), operands);
  append(body_, op, words);
  if (arithmetic && precise_ && type.is_float())
    decorate({words[1], number(spv::Decoration::NoContraction)});
  return {*this, type, words[1]};
}

void Module::emit(spv::Op op, std::initializer_list<std::uint32_t> operands) {
  append(body_, op, {operands.begin(), operands.size()});
}

Value Module::extended(std::uint32_t instruction, Type type,
                       std::initializer_list<std::uint32_t> operands, bool arithmetic) {
  std::vector<std::uint32_t> words{type_id(type), new_id(), glsl_, instruction};
  words.insert(words.end(), operands);
  append(body_, spv::Op::OpExtInst, words);
  if (arithmetic && precise_ && type.is_float())
    decorate({words[1], number(spv::Decoration::NoContraction)});
  return {*this, type, words[1]};
}

void Module::preserve_f16_subnormals() {
  require("SPV_KHR_float_controls");
  require(spv::Capability::DenormPreserve);
  preserves_f16_subnormals_ = true;
}

Shader Module::finish(std::uint32_t subgroup_size) {
  // Tells the driver, and the validation layer's search for hazards, what is only read.
  std::set<std::uint32_t> written;  // bindings
  for (const auto& [key, variable] : buffers_)
    if (written_.count(variable) > 0) written.insert(key.first);
  for (const auto& [key, variable] : buffers_)
    if (written.count(key.first) == 0) decorate({variable, number(spv::Decoration::NonWritable)});
  if (push_block_) {
    const std::uint32_t block = new_id();
    std::vector<std::uint32_t> members{block};
    members.insert(members.end(), push_words_, type_id(U32));
    append(globals_, spv::Op::OpTypeStruct, members);
    decorate({block, number(spv::Decoration::Block)});
    for (std::uint32_t word = 0; word < push_words_; ++word)
      append(decorations_, spv::Op::OpMemberDecorate,
             std::array<std::uint32_t, 4>{block, word, number(spv::Decoration::Offset), 4 * word});
    append(globals_, spv::Op::OpVariable,
           std::array{pointer_type(spv::StorageClass::PushConstant, block), push_block_,
                      number(spv::StorageClass::PushConstant)});
  }
  const std::uint32_t nothing = declare(spv::Op::OpTypeVoid, {0}, 0),
                      function = declare(spv::Op::OpTypeFunction, {0, nothing}, 0);

  Words words{spv::MagicNumber, spirv_1_3, 0, 0, 0};
  for (const auto& [capability, needed] : capabilities_)
    append(words, spv::Op::OpCapability, std::array{capability});
  for (const auto& [extension, needed] : extensions_)
    append(words, spv::Op::OpExtension, string_words(extension));
  Words import{glsl_};
  const Words glsl = string_words("GLSL.std.450");
  import.insert(import.end(), glsl.begin(), glsl.end());
  append(words, spv::Op::OpExtInstImport, import);
  append(words, spv::Op::OpMemoryModel,
         std::array{number(spv::AddressingModel::Logical), number(spv::MemoryModel::GLSL450)});
  Words entry_point{number(spv::ExecutionModel::GLCompute), main_};
  const Words main = string_words("main");
  entry_point.insert(entry_point.end(), main.begin(), main.end());
  entry_point.insert(entry_point.end(), interface_.begin(), interface_.end());
  append(words, spv::Op::OpEntryPoint, entry_point);
  append(words, spv::Op::OpExecutionMode,
         std::array{main_, number(spv::ExecutionMode::LocalSize), local_size_[0], local_size_[1],
                    local_size_[2]});
  if (target_.preserves_special_values)
    append(words, spv::Op::OpExecutionMode,
           std::array{main_, number(spv::ExecutionMode::SignedZeroInfNanPreserve), 32u});
  if (preserves_f16_subnormals_)
    append(words, spv::Op::OpExecutionMode,
           std::array{main_, number(spv::ExecutionMode::DenormPreserve), 16u});
  const auto add = [&](const Words& part) { words.insert(words.end(), part.begin(), part.end()); };
  add(decorations_);
  add(globals_);
  append(words, spv::Op::OpFunction, std::array{nothing, main_, 0u, function});
  append(words, spv::Op::OpLabel, std::array{entry_});
  add(variables_);
  add(prologue_);
  add(body_);
  append(words, spv::Op::OpReturn, {});
  append(words, spv::Op::OpFunctionEnd, {});
  words[3] = next_id_;

  Shader shader;
  shader.name = name_;
  shader.words = std::move(words);
  shader.bindings = bindings_;
  shader.local_size = local_size_;
  shader.push_bytes = 4 * push_words_;
  shader.subgroup_size = subgroup_size;
  return shader;
}

}  // namespace fluxion::vulkan_backend::spirv
