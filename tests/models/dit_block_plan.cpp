// The plan of one DiT block with its tangent, pinned: a change of the planner shows here as a
// change of text. Where the change is meant, set FLUXION_UPDATE_PINNED=1, run this test once, and
// look at the difference before committing it.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "models/networks/dit.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

const std::filesystem::path pinned =
    std::filesystem::path(FLUXION_SOURCE_DIR) / "tests/models/dit_block_plan.txt";

Program block_program(bool with_tangent) {
  DitConfig config;
  config.num_classes = 10;
  const Device device = cpu({1});
  const Parameters parameters = initialise(config, random_key(0, device), DType::f32);
  const std::int64_t batch = 64, tokens = config.tokens(), width = config.hidden_size;
  const Tensor h = zeros({batch, tokens, width}, DType::f32, device),
               c = zeros({batch, width}, DType::f32, device);
  std::vector<Tensor> arguments{h, c, h, c};
  for (const auto& [name, parameter] : parameters)
    if (name.starts_with("blocks.0.")) arguments.push_back(parameter);
  eval(arguments);
  const TracedParameters traced(arguments);
  Parameters inside;
  std::size_t next = 4;
  for (const auto& [name, parameter] : parameters)
    if (name.starts_with("blocks.0.")) inside[name] = traced.tensors()[next++];
  const auto f = [&](const Tensor& x, const Tensor& y) {
    return dit_block(config, inside, "blocks.0", x, y);
  };
  const auto& t = traced.tensors();
  std::vector<Tensor> outputs{f(t[0], t[1])};
  if (with_tangent) {
    auto [value, tangent] = jvp(f, std::tuple{t[0], t[1]}, std::tuple{t[2], t[3]});
    outputs = {value, tangent};
  }
  const auto canonical = plan::canonicalise(t, outputs);
  // What the CPU's kernels may hold is the same on every machine.
  return plan::make_plan(canonical.graph, device.backend().capabilities()).program;
}

}  // namespace

TEST_CASE("a DiT block and its tangent are few kernels", "[models][plan]") {
  // adaLN; norm + modulate; qkv; attention; projection + gate + residual; norm + modulate; fc1 +
  // gelu; fc2 + gate + residual.
  CHECK(block_program(false).kernels.size() == 8);
  // The tangent rides along in the same eight.
  CHECK(block_program(true).kernels.size() == 8);
}

TEST_CASE("the plan of a DiT block with its tangent is the pinned one", "[models][plan]") {
  const std::string text = to_string(block_program(true));
  if (std::getenv("FLUXION_UPDATE_PINNED")) std::ofstream(pinned) << text;
  std::ifstream file(pinned);
  std::stringstream expected;
  expected << file.rdbuf();
  CHECK(text == expected.str());
}
