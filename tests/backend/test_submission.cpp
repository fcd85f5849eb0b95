// Backends: submission. Work is ordered by the buffers it uses, and only reading waits.
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/readback.h"
#include "tests/backend/deferred_backend.h"
#include "tests/backend/devices.h"
#include "tests/backend/program_call.h"
#include "tests/catch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Program product(const Device& device) {
  const auto f = compile([](const Tensor& x, const Tensor& w) { return matmul(x, w); });
  return f.program(zeros({8, 8}, DType::f32, device), zeros({8, 8}, DType::f32, device));
}

std::vector<float> all(float value) { return std::vector<float>(64, value); }

}  // namespace

PROMISE("an event is done after it was waited for, and may be waited for again", "[submission]") {
  const Program program = product(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 0.25f});
  const Event event = executable->submit(call.bindings(), {});
  event.wait();
  CHECK(event.done());
  CHECK_NOTHROW(event.wait());
  CHECK(call.out[0]->written().done());
  CHECK(call.in[0]->idle().done());
  CHECK(Event().done());
}

PROMISE("a program reads what the ones before it write, without a wait between", "[submission]") {
  const Program program = product(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 0.25f});
  // Each step's output is the next one's input: x -> x w = 2 x.
  for (int step = 0; step < 10; ++step) {
    executable->submit(call.bindings(), {});
    std::swap(call.in[0], call.out[0]);
  }
  CHECK(call.input(0) == all(1024));
}

PROMISE("a program reads what was there when it was submitted", "[submission]") {
  const Program program = product(subject.device);
  const auto executable = subject.device.backend().compile(program);
  ProgramCall call(program, subject.device, {1, 0.25f});
  executable->submit(call.bindings(), {});
  const std::vector<float> later = all(100);
  subject.device.backend().upload(*call.in[0], DType::f32, std::as_bytes(std::span(later)));
  CHECK(call.output(0) == all(2));
  CHECK(call.input(0) == later);
}

PROMISE("a download that has started shows the value of that time", "[submission]") {
  Backend& backend = subject.device.backend();
  const auto buffer = backend.allocate(TensorType{{64}, DType::f32});
  const std::vector<float> first = all(1), second = all(2);
  std::vector<float> read(64);
  backend.upload(*buffer, DType::f32, std::as_bytes(std::span(first)));
  const Transfer transfer{buffer.get(), std::as_writable_bytes(std::span(read))};
  const Event event = backend.start_download({&transfer, 1});
  backend.upload(*buffer, DType::f32, std::as_bytes(std::span(second)));
  event.wait();
  CHECK(read == first);
}

PROMISE("many buffers are downloaded in one go, empty ones too", "[submission]") {
  const Tensor a = full({3}, 1.5, DType::f32, subject.device),
               b = zeros({0, 4}, DType::f32, subject.device),
               c = Tensor::from(std::vector<std::int32_t>{4}, {}, subject.device);
  const Readback values(std::vector<Tensor>{a, b, c, a * 2.0});
  CHECK(values.size() == 4);
  CHECK(values.values<float>(0) == std::vector<float>(3, 1.5f));
  CHECK(values.values<float>(1).empty());
  CHECK(values.item<std::int32_t>(2) == 4);
  CHECK(values.values<float>(3) == std::vector<float>(3, 3.0f));
  CHECK(values.done());
  CHECK_THROWS_AS(values.item<float>(2), DTypeError);
  CHECK_THROWS_AS(values.item<float>(0), ShapeError);
  CHECK_THROWS_AS(values.item<float>(4), Error);
}

PROMISE("what is being read may be donated meanwhile", "[submission]") {
  const auto f = compile([](const Tensor& x) { return x + 1.0; }, {.donate = {0}});
  Tensor x = zeros({1000}, DType::f32, subject.device);
  eval(x);
  std::vector<Readback> read;
  for (int step = 0; step < 5; ++step) {
    read.emplace_back(x);
    x = f(x);
  }
  for (int step = 0; step < 5; ++step)
    CHECK(read[static_cast<std::size_t>(step)].values<float>(0) ==
          std::vector<float>(1000, static_cast<float>(step)));
  CHECK(x.to_host<float>() == std::vector<float>(1000, 5.0f));
}

TEST_CASE("nothing but reading waits for a device with time of its own", "[backend][submission]") {
  using Kind = DeviceLog::Kind;
  const auto log = std::make_shared<DeviceLog>();
  const Device device =
      deferred(cpu({.threads = 1}), {.runs = RunsWork::when_waited_for, .log = log});
  const auto f =
      compile([](const Tensor& x, const Tensor& w) { return matmul(x, w) + x; }, {.donate = {0}});
  Tensor x = Tensor::from(all(1), {8, 8}, device);
  const Tensor w = Tensor::from(all(0.125f), {8, 8}, device);
  for (int step = 0; step < 4; ++step) x = f(x, w);
  for (const DeviceLog::Entry& entry : log->take()) CHECK(entry.kind != Kind::wait);
  const Readback reading(x);
  CHECK(log->take().size() == 1);
  CHECK_FALSE(reading.done());
  CHECK(reading.values<float>(0) == all(16));
  const auto waits = log->take();
  REQUIRE(waits.size() == 1);
  CHECK(waits[0].kind == Kind::wait);
}

TEST_CASE("a lost device says so at every wait and refuses further work", "[backend][submission]") {
  for (const RunsWork runs : {RunsWork::on_a_thread, RunsWork::when_waited_for}) {
    const Device device = deferred(cpu({.threads = 1}), {.runs = runs, .dies_at = 3});
    const Tensor x = Tensor::from(all(1), {8, 8}, device), y = x + 1.0;  // points 1 and 2
    eval(y);
    const Readback before(x);  // point 3
    CHECK_THROWS_AS(before.wait(), DeviceError);
    CHECK_THROWS_AS(before.values<float>(0), DeviceError);
    CHECK_FALSE(before.done());
    CHECK_THROWS_AS(y.to_host<float>(), DeviceError);
    CHECK_THROWS_AS(eval(x * 3.0), DeviceError);
    CHECK_THROWS_AS(Tensor::from(all(1), {8, 8}, device), DeviceError);
  }
}
