// Backends: programs. What is refused, what is overwritten and when, what a limit covers, and calls
// from many threads.
#include <atomic>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/backend/devices.h"
#include "tests/backend/program_call.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// y = x + w, z = x w, with a temporary between.
Program two_outputs(const Device& device) {
  const auto f = compile([](const Tensor& x, const Tensor& w) {
    return std::pair(exp(x) + w, matmul(exp(x), w + 1.0));
  });
  return f.program(zeros({5, 5}, DType::f32, device), zeros({5, 5}, DType::f32, device));
}

// state + x over the state.
Program donating(const Device& device, std::int64_t elements = 33) {
  const auto f =
      compile([](const Tensor& state, const Tensor& x) { return state + x; }, {.donate = {0}});
  return f.program(zeros({elements}, DType::f32, device), zeros({elements}, DType::f32, device));
}

// Attention, normalisation, products with an epilogue, row and column sums, gathers, sorting and
// random bits: every kind of kernel.
std::vector<Tensor> every_kind(const Tensor& x, const Tensor& w, const Tensor& indices,
                               const Tensor& key) {
  const Tensor rows = layer_norm(gelu_tanh(matmul(x, w) + 0.5), 1e-6);
  const auto [y, lse] = [&] {
    const Tensor h = reshape(rows, {1, rows.size(0), rows.size(1)});
    const std::vector<Tensor> both =
        make_nodes(Op::attention, AttentionAttributes{2, false}, {h, h, h});
    return std::pair(both[0], both[1]);
  }();
  return {rows,
          y,
          lse,
          softmax(sum(rows, {0})),
          sum(rows),
          take(cumsum(rows, 0), indices, 1),
          make_node(Op::argsort, SortAttributes{1, false}, {rows}),
          uniform(key, {7, 3}),
          concat({transpose(rows, {1, 0}), transpose(rows, {1, 0})}, 0)};
}

}  // namespace

PROMISE("programs of every kind of kernel give what the reference gives", "[programs]") {
  const Device expected = reference();
  for (const std::int64_t size : {1, 5, 18}) {
    INFO("size " << size);
    const auto run = [&](const Device& device) {
      const auto f = compile(every_kind);
      return f(random_tensor({size, 6}, device, 1), random_tensor({6, 8}, device, 2),
               Tensor::from(std::vector<std::int32_t>{3, 0, 7}, {3}, device),
               fold_in(random_key(7, device), 3));
    };
    const std::vector<Tensor> got = run(subject.device), wanted = run(expected);
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO("result " << i);
      CHECK(difference(got[i], wanted[i], 1e-5, 1e-5) == "");
    }
  }
}

PROMISE("bindings that are not the program's are refused, and nothing is written", "[programs]") {
  const Program program = two_outputs(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 2});
  executable->run(call.bindings(), {});
  const std::vector<float> before = call.output(0);
  const auto refused = [&](const std::vector<Buffer*>& in, const std::vector<Buffer*>& out) {
    CHECK_THROWS_AS(executable->submit({in, out, call.scalars}, {}), Error);
  };
  const auto small = subject.device.backend().allocate(TensorType{{24}, DType::f32});
  const auto foreign = cpu({.threads = 1}).backend().allocate(100);
  Buffer *const x = call.in[0], *const w = call.in[1], *const y = call.out[0],
                *const z = call.out[1];
  refused({x}, {y, z});
  refused({x, w, w}, {y, z});
  refused({x, w}, {y});
  refused({x, nullptr}, {y, z});
  refused({x, w}, {nullptr, z});
  refused({x, small.get()}, {y, z});
  refused({x, w}, {y, small.get()});
  refused({x, foreign.get()}, {y, z});
  refused({x, w}, {foreign.get(), z});
  refused({x, w}, {y, y});  // two outputs in one buffer
  refused({x, w}, {x, z});  // no donation
  if (program.scalars > 0) CHECK_THROWS_AS(executable->submit({call.in, call.out, {}}, {}), Error);
  CHECK(call.output(0) == before);
  CHECK(call.input(0) == std::vector<float>(25, 1));
  CHECK_NOTHROW(executable->run(call.bindings(), {}));
}

PROMISE("a program that is not sound is refused", "[programs]") {
  Program program = two_outputs(subject.device);
  program.outputs[0].shape = Shape{5, 6};
  CHECK_THROWS_AS(subject.device.backend().compile(program), Error);
  program = two_outputs(subject.device);
  program.arena_bytes = 0;
  for (BufferSlot& slot : program.buffers)
    if (slot.kind == BufferKind::temporary) slot.offset = 1 << 20;
  if (program.buffers.size() > 4) CHECK_THROWS_AS(subject.device.backend().compile(program), Error);
}

PROMISE("a kernel beyond the limits is refused by name", "[programs]") {
  const KernelLimits& limits = subject.device.backend().capabilities().limits;
  if (limits.max_loads > 1000) return;  // no limit
  // The sum of one input read through many views, element for element.
  Program program;
  const TensorType type{{4}, DType::f32};
  program.inputs = program.outputs = {type};
  program.donations = {-1};
  program.buffers = {{BufferKind::input, type, 0, 0}, {BufferKind::output, type, 0, 0}};
  Tape tape;
  tape.extents = {4};
  for (std::int32_t i = 0; i <= limits.max_loads; ++i) {
    tape.loads.push_back({0, DType::f32, {0, {1}}, {}});
    TapeInstruction load;
    load.code = TapeCode::load;
    load.argument = i;
    tape.instructions.push_back(load);
  }
  tape.stores.push_back({limits.max_loads, 1, DType::f32, {0, {1}}});
  program.kernels = {TapeKernel{tape}};
  program.commit_point = 1;
  CHECK_NOTHROW(verify(program, subject.device.backend().capabilities().storage));
  CHECK_THROWS_WITH(subject.device.backend().compile(program), has_text("load"));
}

PROMISE("an output takes over an input only where that is bound", "[programs]") {
  const Program program = donating(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall kept(program, subject.device, {1, 2}), given(program, subject.device, {1, 2});
  executable->run(kept.bindings(), {});
  CHECK(kept.output(0) == std::vector<float>(33, 3));
  CHECK(kept.input(0) == std::vector<float>(33, 1));
  if (program.donations[0] != 0) return;  // a backend of single ops takes over nothing
  given.donate(0);
  executable->run(given.bindings(), {});
  executable->run(given.bindings(), {});
  CHECK(given.output(0) == std::vector<float>(33, 5));
}

PROMISE("a call that is stopped before it starts leaves its state whole", "[programs]") {
  const Program program = donating(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 2});
  if (program.donations[0] == 0) call.donate(0);
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(executable->run(call.bindings(), {stop.get_token()}), Cancelled);
  CHECK(call.input(0) == std::vector<float>(33, 1));
  executable->run(call.bindings(), {});
  CHECK(call.output(0) == std::vector<float>(33, 3));
}

PROMISE("a memory limit covers temporaries and scratch", "[programs]") {
  // Sorting wants scratch of its own on every backend that sorts in place of nothing.
  const auto f = compile(every_kind);
  const Device& device = subject.device;
  const auto arguments =
      std::tuple(random_tensor({18, 6}, device, 1), random_tensor({6, 8}, device, 2),
                 Tensor::from(std::vector<std::int32_t>{3, 0, 7}, {3}, device),
                 fold_in(random_key(7, device), 3));
  const std::size_t workspace = std::apply(
      [&](const auto&... each) { return f.memory_report(each...).workspace_bytes; }, arguments);
  REQUIRE(workspace > 0);
  const auto run = [&](std::size_t limit) {
    RunOptions options;
    options.memory_limit = limit;
    std::apply([&](const auto&... each) { return f.run(options, each...); }, arguments)[0]
        .template to_host<float>();
  };
  CHECK_THROWS_AS(run(workspace - 1), OutOfMemory);
  CHECK_THROWS_AS(run(0), OutOfMemory);
  CHECK_NOTHROW(run(workspace));
}

PROMISE("eight threads run one program at once, each with an arena of its own", "[programs]") {
  const Device& device = subject.device;
  const auto f = compile([](const Tensor& x) {
    const Tensor y = matmul(x, x) + 1.0;
    return softmax(matmul(y, transpose(y, {1, 0})));
  });
  constexpr int threads = 8, calls = 6;
  std::vector<Tensor> inputs;
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < threads; ++i) {
    inputs.push_back(random_tensor({19, 19}, device, static_cast<std::uint64_t>(i)));
    expected.push_back(f(inputs.back()).to_host<float>());
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i)
    workers.emplace_back([&, i] {
      for (int call = 0; call < calls; ++call)
        if (f(inputs[static_cast<std::size_t>(i)]).to_host<float>() !=
            expected[static_cast<std::size_t>(i)])
          ++wrong;
    });
  for (std::thread& worker : workers) worker.join();
  CHECK(wrong == 0);
  CHECK(device.backend().in_use().arenas == 0);
}

PROMISE("a program may be used up to the end of its submission, and no longer", "[programs]") {
  const Program program = two_outputs(subject.device);
  std::vector<float> first;
  std::shared_ptr<Buffer> output;
  {
    const auto executable = subject.device.backend().compile(program);
    ProgramCall call(program, subject.device, {1, 2});
    executable->submit(call.bindings(), {});
    output = call.outputs[0];
  }  // executable, inputs, the other output and the scalars are gone
  std::vector<float> values(25);
  subject.device.backend().download(*output, DType::f32, std::as_writable_bytes(std::span(values)));
  CHECK(values[0] == Approx(std::exp(1.0) + 2));
}

PROMISE("kernel times are there once the event is done", "[programs]") {
  const Program program = two_outputs(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 2});
  std::vector<double> seconds;
  RunOptions options;
  options.kernel_seconds = &seconds;
  executable->submit(call.bindings(), options).wait();
  CHECK(seconds.size() == program.kernels.size());
}
