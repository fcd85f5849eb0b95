// What random programs found, each as small as it got.
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

void check_on_cpu(const std::vector<HostValue>& inputs, const TensorFunction& f) {
  const std::vector<Tensor> expected = f(to_tensors(inputs, reference())),
                            got = f(to_tensors(inputs, cpu()));
  eval(expected);
  eval(got);
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(difference(got[i], expected[i], 1e-12, 1e-12) == "");
}

}  // namespace

TEST_CASE("a copy of a product's transposed copy does not run in the product's order",
          "[random][plan]") {
  check_on_cpu({random_value({2, 48, 1}, -1.5, 1.5, 1), random_value({2, 1, 2}, -1.5, 1.5, 2)},
               [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                 const Tensor whole = reshape(transpose(matmul(x[0], x[1]), {1, 0, 2}), {6, 8, 4});
                 const Tensor few =
                     slice_axis(reshape(abs(whole), {192}), 0, 0,
                                3);  // no affine view: the transposed product is copied
                 const Tensor places =
                     convert(abs(slice(whole, {0, 0, 0}, {3, 8, 4}, {1, 1, 1})), DType::i32);
                 return {few * 2.0, take_along_axis(whole, places, 0)};
               });
}
