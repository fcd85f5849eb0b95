// Programs from strangers whose op kernels would read or write where they must not: verify refuses
// them.
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/program/program.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Program attention_program() {
  const Tensor x = zeros({2, 5, 16}, DType::f32, cpu({.threads = 1}));
  return compile([](const Tensor& x) {
           const Tensor h = exp(x);
           return std::vector<Tensor>(
               make_nodes(Op::attention, AttentionAttributes{1, false}, {h, h, h}));
         })
      .program(x);
}

OpKernel& attention_of(Program& program) {
  for (Kernel& kernel : program.kernels)
    if (auto* op = std::get_if<OpKernel>(&kernel); op && op->op == Op::attention) return *op;
  throw Error("the program has no attention kernel");
}

}  // namespace

TEST_CASE("an attention kernel may not write what it reads, nor one buffer twice",
          "[engine][program]") {
  const Program sound = attention_program();
  CHECK(message_of([&] { verify(sound); }) == "");
  {
    Program program = sound;
    OpKernel& kernel = attention_of(program);
    kernel.outputs[0] = kernel.inputs[0];
    CHECK_THAT(message_of([&] { verify(program); }), has_text("once more"));
  }
  {
    Program program = sound;
    OpKernel& kernel = attention_of(program);
    kernel.outputs[1] = kernel.outputs[0];
    CHECK_THAT(message_of([&] { verify(program); }), has_text("for two outputs"));
  }
}

TEST_CASE("an attention kernel reads inside of its buffers", "[engine][program]") {
  const Program sound = attention_program();
  const auto with = [&](auto change) {
    Program program = sound;
    change(attention_of(program).views[1]);
    return message_of([&] { verify(program); });
  };
  CHECK_THAT(with([](ContractOperand& view) { view.offset = 1; }), has_text("reads elements"));
  CHECK_THAT(with([](ContractOperand& view) { view.offset = -1; }), has_text("reads elements"));
  CHECK_THAT(with([](ContractOperand& view) { view.rows.strides[0] *= 2; }),
             has_text("reads elements"));
  CHECK_THAT(with([](ContractOperand& view) { view.columns.sizes[0] = 17; }),
             has_text("do not make"));
  CHECK_THAT(with([](ContractOperand& view) { view.buffer = 0; }), has_text("another buffer"));
}

TEST_CASE("an axis of many digits is added up, not listed", "[engine][program]") {
  Program program = attention_program();
  OpKernel& kernel = attention_of(program);
  const std::int64_t keys = std::int64_t{1} << 44;
  for (const std::size_t i : {1, 2}) {
    kernel.input_types[i].shape = {2, keys, 16};
    kernel.views[i].rows = {{keys / 2, 2}, {0, 4}};
  }
  CHECK(message_of([&] { verify(program); }) == "");
  CHECK(cpu({.threads = 1}).backend().compile(program)->workspace_bytes() < (1 << 20));
}

TEST_CASE("windows and convolutions of absurd sizes are refused, not wrapped",
          "[engine][program]") {
  const std::int64_t steps = (std::int64_t{1} << 24) + 1, apart = std::int64_t{1} << 40;
  const TensorType x{{1, 1, 1, 1}, DType::u8}, y{{1, 1, 1, steps, 1, 1}, DType::u8};
  Program program;
  program.inputs = {x};
  program.outputs = {y};
  program.donations = {-1};
  program.buffers = {{BufferKind::input, x, 0, 0}, {BufferKind::output, y, 0, 0}};
  OpKernel kernel;
  kernel.op = Op::windows;
  kernel.attributes = WindowAttributes{{steps, 1}, {1, 1}, {apart, 1}};
  kernel.inputs = {0};
  kernel.outputs = {1};
  kernel.input_types = {x};
  kernel.output_types = {y};
  program.kernels = {kernel};
  program.commit_point = 1;
  CHECK_THAT(message_of([&] { verify(program); }), has_text("each in range"));

  const Device device = cpu({.threads = 1});
  const Tensor image = zeros({1, 4, 4, 2}, DType::f64, device),
               weight = zeros({3, 3, 2, 2}, DType::f64, device);
  for (const auto member : {&ConvAttributes::stride, &ConvAttributes::dilation,
                            &ConvAttributes::spread, &ConvAttributes::low, &ConvAttributes::high}) {
    ConvAttributes attributes;
    attributes.accumulate = attributes.result = DType::f64;
    attributes.*member = Dims{std::numeric_limits<std::int64_t>::max(), 1};
    CHECK_THROWS_AS(make_node(Op::conv2d, attributes, {image, weight}), ShapeError);
  }
}
