// What suits a machine is a value of its backend: under other numbers the same mathematics is
// planned otherwise, and comes to the same result.
#include <algorithm>

#include "autograd/transforms.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "models/layers/image.h"
#include "tests/backend/passing_backend.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

// The reference backend on a machine with other costs.
class OtherMachine : public testing::PassingBackend {
 public:
  explicit OtherMachine(const CostModel& costs)
      : PassingBackend(reference()), capabilities_(inner().capabilities()) {
    capabilities_.costs = costs;
  }
  const Capabilities& capabilities() const override { return capabilities_; }

 private:
  Capabilities capabilities_;
};

Device machine(const CostModel& costs) { return Device(std::make_unique<OtherMachine>(costs)); }

using PlannedFunction = std::function<Tensor(const std::vector<Tensor>&)>;

std::vector<Tensor> arguments(const std::vector<Shape>& shapes, const Device& device) {
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    tensors.push_back(uniform(random_key(i, device), shapes[i], DType::f64) * 2.0 - 1.0);
  return tensors;
}

// Value and gradient of sum(sin(f)) on a machine: all numbers one after another.
std::vector<double> results(const PlannedFunction& f, const std::vector<Shape>& shapes,
                            const CostModel& costs) {
  const std::vector<Tensor> x = arguments(shapes, machine(costs));
  std::vector<double> numbers = f(x).to_host<double>();
  const auto loss = [&](const std::vector<Tensor>& x) { return sum(sin(f(x))); };
  for (const Tensor& gradient : grad(loss)(x)) {
    const std::vector<double> more = gradient.to_host<double>();
    numbers.insert(numbers.end(), more.begin(), more.end());
  }
  return numbers;
}

void check_equal(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) < 1e-12);
}

// The plan of f for a backend that fuses, with these costs.
Program plan_of(const PlannedFunction& f, const std::vector<Shape>& shapes,
                const CostModel& costs) {
  const Device device = machine(costs);
  std::vector<Tensor> parameters;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    parameters.push_back(make_leaf(Op::parameter, IndexAttributes{static_cast<std::int64_t>(i)},
                                   {shapes[i], DType::f32}, device));
  const std::vector<Tensor> outputs{f(parameters)};
  return plan::make_plan(plan::canonicalise(parameters, outputs).graph,
                         {.name = "test", .costs = costs})
      .program;
}

std::vector<ContractKernel> products(const Program& program) {
  std::vector<ContractKernel> found;
  for (const Kernel& kernel : program.kernels)
    if (const auto* product = std::get_if<ContractKernel>(&kernel)) found.push_back(*product);
  return found;
}

std::int64_t reductions(const Program& program) {
  return std::count_if(program.kernels.begin(), program.kernels.end(), [](const Kernel& kernel) {
    const auto* map = std::get_if<TapeKernel>(&kernel);
    return map && map->tape.reduced_axes > 0;
  });
}

Tensor depthwise(const std::vector<Tensor>& x) {
  return conv2d(x[0], x[1], {.low = {1, 1}, .high = {1, 1}, .groups = 5});
}

}  // namespace

TEST_CASE("a kernel a channel is a sum of views or a product, as suits the device",
          "[engine][plan][costs]") {
  const std::vector<Shape> shapes{{2, 4, 3, 5}, {3, 3, 1, 5}};
  const CostModel views, product{.depthwise_as_views = false};
  CHECK(products(plan_of(depthwise, shapes, views)).empty());
  CHECK(products(plan_of(depthwise, shapes, product)).size() == 1);
  check_equal(results(depthwise, shapes, views), results(depthwise, shapes, product));
}

TEST_CASE("group norm sums channel by channel or all at once, as suits the device",
          "[engine][plan][costs]") {
  const std::vector<Shape> shapes{{2, 4, 3, 6}, {6}, {6}};
  const PlannedFunction f = [](const std::vector<Tensor>& x) {
    return group_norm(x[0], 3, 1e-3, x[1], x[2]);
  };
  const CostModel by_channel, at_once{.group_norm_by_channel = false};
  CHECK(plan_of(f, shapes, at_once).kernels.size() < plan_of(f, shapes, by_channel).kernels.size());
  check_equal(results(f, shapes, by_channel), results(f, shapes, at_once));
}

TEST_CASE("a convolution's gradient is the product that suits the device's packing",
          "[engine][plan][costs]") {
  const std::vector<Shape> shapes{{2, 6, 6, 4}, {3, 3, 4, 3}};
  const PlannedFunction f = [](const std::vector<Tensor>& x) { return conv2d(x[0], x[1]); };
  const PlannedFunction gradient = [&](const std::vector<Tensor>& x) {
    return grad([&](const Tensor& w) { return sum(sin(f({x[0], w}))); })(x[1]);
  };
  const auto columns = [&](const CostModel& costs) {
    return products(plan_of(gradient, shapes, costs)).back().n;
  };
  const CostModel turns, turns_few{.max_turned_channels = 2};
  CHECK(columns(turns) == 36);
  CHECK(columns(turns_few) == 3);
  check_equal(results(gradient, shapes, turns), results(gradient, shapes, turns_few));
}

TEST_CASE("what is computed again, and what is stored, is the device's to say",
          "[engine][plan][costs]") {
  // Rows and columns are summed by different kernels, which both read y.
  const PlannedFunction f = [](const std::vector<Tensor>& x) {
    const Tensor y = x[0] * 2.0 + 1.0;
    return sum(y, {0}, true) * sum(y, {1}, true);
  };
  const std::vector<Shape> shapes{{64, 64}};
  const std::int64_t all = 64 * 64 * 4;
  CHECK(plan_of(f, shapes, {}).arena_bytes < all);
  CHECK(plan_of(f, shapes, {.max_recomputed_ops = 0}).arena_bytes >= all);
  CHECK(plan_of(f, shapes, {.max_source_bytes = 0.5}).arena_bytes >= all);
}

TEST_CASE("few and long rows are split at the reduction where cores would be idle",
          "[engine][plan][costs]") {
  const PlannedFunction f = [](const std::vector<Tensor>& x) { return softmax(x[0], -1); };
  const std::vector<Shape> shapes{{4, 8192}};
  CHECK(plan_of(f, shapes, {}).kernels.size() > 1);
  CHECK(plan_of(f, shapes, {.min_resident_rows = 4}).kernels.size() == 1);
  CHECK(plan_of(f, shapes, {.max_lonely_row = 8192}).kernels.size() == 1);
}

TEST_CASE("a sum of a few that lie apart is a sum of views where that suits the device",
          "[engine][plan][costs]") {
  const PlannedFunction f = [](const std::vector<Tensor>& x) {
    return avg_pool2d(x[0], {2, 2}, {2, 2});
  };
  const std::vector<Shape> shapes{{2, 8, 8, 16}};
  CHECK(reductions(plan_of(f, shapes, {})) == 0);
  CHECK(reductions(plan_of(f, shapes, {.max_summed_views = 3})) == 1);
  CHECK(reductions(plan_of(f, shapes, {.min_summed_row = 17})) == 1);
}

TEST_CASE("transcendental ops are elementwise", "[engine][plan][costs]") {
  for (int i = 0; i < op_count; ++i) {
    const Op op = static_cast<Op>(i);
    INFO(to_string(op));
    if (is_transcendental(op)) CHECK(info(op).op_class == OpClass::elementwise);
  }
}
