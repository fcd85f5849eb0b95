// Products of matrices on the software device against plain loops in f64: every tile, odd shapes,
// views, several terms and results, epilogues, 16-bit operands, NaN and infinities.
#include <spirv/unified1/GLSL.std.450.h>

#include <cmath>
#include <limits>
#include <spirv/unified1/spirv.hpp11>

#include "backends/vulkan/kernels/gemm.h"
#include "backends/vulkan/kernels/tile_product.h"
#include "engine/error.h"
#include "tests/catch.h"
#include "tests/vulkan/gemm/contraction.h"
#include "tests/vulkan/gemm/run_kernel.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

// As the device keeps 16-bit floats: as themselves, or as f32.
Storage storage_of(bool narrow) {
  Storage storage;
  storage.write_together(4);
  if (!narrow) storage.keep(DType::bf16, DType::f32).keep(DType::f16, DType::f32);
  return storage;
}

std::string run(Contraction& made, const ShaderTarget& target, const Storage& storage,
                const GemmChoice* choice = nullptr) {
  const LoweringContext context{made.memory.program, storage, target};
  run_kernel(choice ? lower_contraction(made.kernel(), context, *choice)
                    : lower_contraction(made.kernel(), context),
             made.memory, storage, {Contraction::scalar});
  return first_wrong(made);
}

void check(const ContractionCase& c, std::uint32_t seed, const ShaderTarget& target,
           const Storage& storage = storage_of(true), const GemmChoice* choice = nullptr) {
  INFO(c << ", seed " << seed << ", " << target.shared_bytes << " bytes of shared memory");
  Contraction made = random_contraction(c, seed);
  CHECK(run(made, target, storage, choice) == "");
}

// y [batch, height, width, out] of an image [batch, height + 2, width + 2, channels] and a filter
// [3, 3, channels, out]: the left operand is a view of overlapping windows.
Contraction convolution(std::int64_t batch, std::int64_t height, std::int64_t width,
                        std::int64_t channels, std::int64_t out) {
  Contraction made =
      random_contraction({.m = batch * height * width, .n = out, .k = 9 * channels}, 11);
  RandomNumbers random(5);
  const std::int64_t row = (width + 2) * channels, image = (height + 2) * row;
  std::vector<double> values(static_cast<std::size_t>(batch * image));
  for (double& value : values) value = random.value();
  ContractOperand windows;
  windows.buffer = made.memory.add_input(DType::f32, values);
  windows.batch = {{1}, {0}};
  windows.rows = {{batch, height, width}, {image, row, channels}};
  windows.columns = {{3, 3, channels}, {row, channels, 1}};
  std::get<ContractKernel>(made.memory.program.kernels.front()).terms.front().lhs = windows;
  return made;
}

}  // namespace

TEST_CASE("every tile computes products of every kind", "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  std::uint32_t seed = 1;
  for (const GemmTile& tile : gemm_tiles()) {
    // Two results need no more than one does but registers.
    ContractionCase c{.batch = 2, .m = 70, .n = 72, .k = 52};
    c.results = 1 + (tile.thread_rows < 8), c.terms = c.results + 1;
    c.epilogue = Epilogue::bias;
    GemmChoice choice{tile, seed % 3 == 0 ? 3 : 1};
    choice.tile.stages = 1 + seed % 2;
    if (!runs(choice.tile, c.results, usual_target())) choice.tile.stages = 1;
    c.plain_views = seed % 4 < 2;
    INFO(to_string(tile) << ", stages " << choice.tile.stages << ", parts " << choice.splits);
    check(c, seed++, usual_target(), storage_of(true), &choice);
  }
}

TEST_CASE("products of random shapes, views, terms and dtypes", "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  const std::uint32_t first_seed = 20261128;
  RandomNumbers random(first_seed);
  for (int round = 0; round < 20; ++round) {
    const auto size = [&] {
      return random.one_in(3) ? 1 + random.below(4)
                              : 4 * (1 + random.below(20)) + random.below(2) * random.below(4);
    };
    ContractionCase c{.batch = 1 + random.below(3), .m = size(), .n = size(), .k = size()};
    c.results = static_cast<std::int32_t>(1 + random.below(2));
    c.terms = static_cast<int>(c.results + random.below(3));
    c.plain_views = random.one_in(3);
    c.epilogue = static_cast<Epilogue>(random.below(3));
    constexpr DType floats[] = {DType::f32, DType::bf16, DType::f16};
    if (random.one_in(2))
      c.lhs = floats[random.below(3)], c.rhs = floats[random.below(3)],
      c.stored = floats[random.below(3)];
    check(c, static_cast<std::uint32_t>(round), random.one_in(2) ? usual_target() : least_target(),
          storage_of(false));
    if (c.lhs != DType::f32 || c.rhs != DType::f32 || c.stored != DType::f32)
      check(c, static_cast<std::uint32_t>(round), usual_target(), storage_of(true));
  }
}

TEST_CASE("f16 operands keep their subnormals, in one instruction only where a device promises it",
          "[vulkan][gemm]") {
  Contraction made =
      random_contraction({.m = 32, .n = 32, .k = 32, .lhs = DType::f16, .rhs = DType::f16}, 1);
  const Storage storage = storage_of(true);
  for (const bool preserves : {false, true}) {
    ShaderTarget target = usual_target();
    target.preserves_f16_subnormals = preserves;
    const KernelWork work =
        lower_contraction(made.kernel(), {made.memory.program, storage, target});
    CHECK(invalid(work, target) == "");
    constexpr std::uint32_t unpack = GLSLstd450UnpackHalf2x16;
    const std::vector<std::uint32_t>& words = work.shaders.front().words;
    // An extended instruction of one operand.
    constexpr std::uint32_t instruction = 6 << 16 | static_cast<std::uint32_t>(spv::Op::OpExtInst);
    bool unpacks = false;
    for (std::size_t i = 0; i + 4 < words.size(); ++i)
      unpacks = unpacks || (words[i] == instruction && words[i + 4] == unpack);
    CHECK(unpacks == preserves);
  }
}

TEST_CASE("16-bit operands are read eight at once where memory allows it", "[vulkan][gemm]") {
  const auto view_of = [](std::int64_t strips, std::int64_t inner, std::int64_t strip_stride,
                          std::int64_t inner_stride, std::int64_t offset, DType kept) {
    OperandView view;
    view.kept = kept;
    view.offset = offset;
    view.strips = ViewAxis::of({{strips}, {strip_stride}});
    view.inner = ViewAxis::of({{inner}, {inner_stride}});
    return TileRequest{view, 0, 64, 16};
  };
  CHECK(view_of(72, 56, 56, 1, 0, DType::bf16).may_take_eights());  // along the sum
  CHECK(view_of(72, 56, 1, 72, 8, DType::f16).may_take_eights());   // along the strips
  CHECK_FALSE(view_of(72, 56, 56, 1, 4, DType::bf16).may_take_eights());
  CHECK_FALSE(view_of(72, 60, 60, 1, 0, DType::bf16).may_take_eights());
  CHECK_FALSE(view_of(72, 56, 60, 1, 0, DType::bf16).may_take_eights());
  CHECK_FALSE(view_of(72, 56, 56, 1, 0, DType::f32).may_take_eights());
  TileRequest eights = view_of(72, 56, 1, 72, 0, DType::bf16);
  CHECK(eights.units() == 16 * 16);
  eights.eights = true;
  CHECK(eights.units() == 8 * 16);
  CHECK(eights.quads_per_unit() == 2);

  if (!can_run_kernels()) return;
  std::uint32_t seed = 500;
  for (const GemmTile& tile : gemm_tiles())
    for (const bool transposed : {false, true}) {
      ContractionCase c{.batch = 2, .m = 136, .n = 144, .k = seed % 3 == 0 ? 56 : 64};
      c.lhs = seed % 2 ? DType::bf16 : DType::f16;
      c.rhs = seed % 5 ? DType::bf16 : DType::f32;
      GemmChoice choice{tile, seed % 4 == 0 ? 2 : 1};
      choice.tile.stages = 1 + seed % 2;
      if (!runs(choice.tile, 1, usual_target())) choice.tile.stages = 1;
      Contraction made = random_contraction(c, seed++);
      if (transposed) {
        ContractTerm& term =
            std::get<ContractKernel>(made.memory.program.kernels.front()).terms.front();
        term.lhs.rows = {{c.m}, {1}}, term.lhs.columns = {{c.k}, {c.m}};
        term.rhs.rows = {{c.k}, {1}}, term.rhs.columns = {{c.n}, {c.k}};
      }
      INFO(c << ", " << to_string(tile) << (transposed ? ", transposed" : "") << ", stages "
             << choice.tile.stages << ", parts " << choice.splits);
      CHECK(run(made, usual_target(), storage_of(true), &choice) == "");
    }
}

TEST_CASE("products over nothing are 0, and run the epilogue", "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  check({.batch = 2, .m = 5, .n = 7, .k = 0, .results = 2, .terms = 2}, 1, usual_target());
  check({.m = 5, .n = 7, .k = 0, .epilogue = Epilogue::bias}, 2, usual_target());
  for (const ContractionCase& c :
       {ContractionCase{.batch = 0, .m = 5, .n = 7, .k = 3},
        ContractionCase{.m = 0, .n = 7, .k = 3}, ContractionCase{.m = 5, .n = 0, .k = 3}}) {
    const Contraction made = random_contraction(c, 3);
    const ShaderTarget target = usual_target();
    CHECK(lower_contraction(made.kernel(), {made.memory.program, {}, target}).dispatches.empty());
  }
}

TEST_CASE("products with one row or column", "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  for (const Epilogue epilogue : {Epilogue::store, Epilogue::bias}) {
    check({.m = 64, .n = 1, .k = 300, .epilogue = epilogue}, 4, usual_target());
    check({.m = 1, .n = 64, .k = 300, .epilogue = epilogue}, 5, usual_target());
    check({.batch = 4, .m = 1, .n = 1, .k = 37, .epilogue = epilogue}, 6, usual_target());
    check({.m = 1, .n = 1, .k = 1, .epilogue = epilogue}, 7, usual_target());
  }
}

TEST_CASE("a convolution reads its windows in place", "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  for (const std::int64_t channels : {1, 3, 16}) {
    INFO(channels << " channels");
    Contraction made = convolution(2, 7, 5, channels, 12);
    CHECK(run(made, usual_target(), storage_of(true)) == "");
  }
}

TEST_CASE("products carry NaN and infinities to the elements that they belong to",
          "[vulkan][gemm]") {
  if (!can_run_kernels()) return;
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double special : {std::nan(""), infinity, -infinity}) {
    for (const bool left : {true, false}) {
      INFO(special << (left ? " on the left" : " on the right"));
      Contraction made = random_contraction({.m = 37, .n = 35, .k = 29}, 9);
      const ContractTerm& term = made.kernel().terms.front();
      std::vector<double>& values = made.memory.values(left ? term.lhs.buffer : term.rhs.buffer);
      values[values.size() / 2] = special;
      values.back() = special;
      CHECK(run(made, usual_target(), storage_of(true)) == "");
    }
  }
}

TEST_CASE("terms that share an operand share its tiles as long as they fit", "[vulkan][gemm]") {
  // y = x w, dy = dx w + x dw.
  Contraction made = random_contraction({.m = 64, .n = 64, .k = 64, .results = 2, .terms = 2}, 1);
  ContractKernel kernel = made.kernel();
  kernel.terms.resize(2);
  kernel.terms[1].rhs = kernel.terms[0].rhs;
  kernel.terms[1].lhs.offset = kernel.terms[0].lhs.offset + 1;
  ContractTerm third = kernel.terms[0];
  third.rhs.offset += 1, third.result = 1;
  kernel.terms.push_back(third);
  const GemmTile tile{64, 64, 16, 8, 4};
  const std::vector<TermGroup> together = group_terms(kernel, {}, tile, 32768);
  REQUIRE(together.size() == 1);
  CHECK(together[0].lhs.size() == 2);
  CHECK(together[0].rhs.size() == 2);
  CHECK(group_terms(kernel, {}, tile, 16384).size() == 2);
}

TEST_CASE("the tile of a product is one that the device can run", "[vulkan][gemm]") {
  for (const ShaderTarget& target : {usual_target(), least_target()})
    for (const std::int64_t m : {1, 49, 4096})
      for (const std::int64_t n : {1, 33, 1024})
        for (const std::int64_t k : {1, 1000, 65536})
          for (const std::int32_t results : {1, 2, 4}) {
            GemmProblem problem{.m = m, .n = n, .k = k, .results = results};
            problem.lhs = problem.rhs = 2, problem.terms = 3;
            const GemmChoice choice = choose_tile(problem, target);
            CHECK(runs(choice.tile, results, target));
          }
  CHECK(choose_tile({.m = 64, .n = 64, .k = 65536}, usual_target()).splits > 1);
  CHECK(choose_tile({.m = 4096, .n = 4096, .k = 4096}, usual_target()).splits == 1);
  CHECK(choose_tile({.m = 64, .n = 64, .k = 100}, usual_target()).splits == 1);
}

TEST_CASE("products in f64 and tiles beyond the device are refused", "[vulkan][gemm]") {
  Contraction made = random_contraction({.m = 8, .n = 8, .k = 8}, 1);
  const ShaderTarget target = least_target();
  const LoweringContext context{made.memory.program, {}, target};
  CHECK_THROWS_AS(lower_contraction(made.kernel(), context, {GemmTile{128, 128, 16, 8, 8}, 1}),
                  Error);
  ContractKernel kernel = made.kernel();
  kernel.accumulate = DType::f64;
  CHECK_THROWS_AS(lower_contraction(kernel, context), DTypeError);
}
