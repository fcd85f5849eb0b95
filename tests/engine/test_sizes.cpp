// Sizes that no tensor has: refused at the call that asks for them, in the name of the op.
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/shape_rules.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 40, largest = max_tensor_bytes / 4;

}  // namespace

TEST_CASE("elements, bytes and strides are counted or refused, never wrapped", "[engine][sizes]") {
  CHECK_THROWS_AS((Shape{huge, huge}.elements()), ShapeError);
  CHECK_THROWS_AS((Shape{-2, 3}.elements()), ShapeError);
  CHECK((Shape{huge, huge, 0}.elements()) == 0);
  CHECK_THROWS_AS(row_major_strides(Shape{1, huge, huge}), ShapeError);
  CHECK(row_major_strides(Shape{huge, huge}) == Dims{huge, 1});
  CHECK(row_major_strides(Shape{2, 0, 3}) == Dims{3, 3, 1});
  CHECK_THROWS_AS((Shape{2, 3}[2]), ShapeError);
  CHECK_THROWS_AS((Shape{2, 3}[-1]), ShapeError);
  CHECK_THROWS_AS(Shape{}.back(), ShapeError);
}

TEST_CASE("a type of more bytes than any memory holds can't be made", "[engine][sizes]") {
  CHECK(TensorType({largest}, DType::f32).bytes() == static_cast<std::size_t>(max_tensor_bytes));
  CHECK_THROWS_AS(TensorType({largest + 1}, DType::f32), ShapeError);
  CHECK_THROWS_AS(TensorType({largest}, DType::f64), ShapeError);
  CHECK_THROWS_AS(TensorType({huge, huge}, DType::f32), ShapeError);
  // An empty axis does not make the strides of the others smaller.
  CHECK_THROWS_AS(TensorType({0, huge, huge}, DType::f32), ShapeError);
  CHECK_THROWS_AS(TensorType({-1}, DType::f32), ShapeError);
}

TEST_CASE("every op refuses a result of too many elements", "[engine][sizes]") {
  const Device device = cpu({.threads = 1});
  const auto f32 = [&](const Shape& shape) { return zeros(shape, DType::f32, device); };
  const Tensor wide = f32({largest}), row = f32({1, largest}), column = f32({largest, 1}),
               one = f32({1}), byte = zeros({max_tensor_bytes}, DType::u8, device);
  const Tensor key = random_key(1, device);
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();

  struct Case {
    const char* op;
    std::function<void()> call;
  };
  const Case cases[] = {
      {"broadcast_to",
       [&] {
         zeros({huge, huge}, DType::f32, device);
       }},
      {"broadcast_to",
       [&] {
         full({huge, huge, 0}, 1, DType::f32, device);
       }},
      {"broadcast_to",
       [&] {
         broadcast_to(wide, {2, largest});
       }},
      {"iota",
       [&] {
         iota({huge, huge}, 0, DType::i32, device);
       }},
      {"add", [&] { row + column; }},
      {"lt", [&] { lt(row, column); }},
      {"where", [&] { where(lt(one, one), row, column); }},
      {"reshape",
       [&] {
         reshape(f32({0}), {0, huge, huge});
       }},
      {"reshape",
       [&] {
         reshape(wide, {-1, huge, huge});
       }},
      {"pad", [&] { pad(one, {most}, {most}); }},
      {"pad", [&] { pad(wide, {1}, {0}); }},
      {"concat",
       [&] {
         concat({wide, one}, 0);
       }},
      {"concat", [&] { concat(std::vector<Tensor>(3, wide), 0); }},
      {"matmul", [&] { matmul(column, row); }},
      {"take", [&] { take(row, zeros({2}, DType::i32, device), 0); }},
      {"convert", [&] { convert(byte, DType::f32); }},
      {"random_bits",
       [&] {
         random_bits(key, {huge, huge});
       }},
      {"random_bits",
       [&] {
         uniform(key, {huge, huge});
       }},
      {"random_bits", [&] { normal(key, {largest}); }},
      {"random_bits", [&] { split_key(key, most); }},
      {"windows",
       [&] {
         make_node(Op::windows, WindowAttributes{{2, 1}, {1, 1}, {1, 1}},
                   {f32({largest / 2, 2, 1, 1})});
         make_node(Op::windows, WindowAttributes{{2, 1}, {1, 1}, {1, 1}},
                   {f32({largest / 3, 3, 1, 1})});
       }},
      {"conv2d",
       [&] {
         make_node(Op::conv2d, ConvAttributes{}, {f32({huge, 1, 1, 1}), f32({1, 1, 1, huge})});
       }},
      {"Tensor::from",
       [&] {
         Tensor::from<float>(std::vector<float>{}, Shape{huge, huge}, device);
       }},
  };
  for (const Case& each : cases) {
    INFO(each.op);
    const std::string said = message_of<ShapeError>(each.call);
    CHECK_THAT(said, has_text(each.op == std::string("Tensor::from") ? "no tensor" : each.op));
  }
  // A step of any length is one: nothing of the length is computed by adding to it.
  CHECK(slice(one, {0}, {1}, {most}).shape() == Shape{1});
}

TEST_CASE("an axis is as long as its positions can be numbered", "[engine][sizes]") {
  const Device device = cpu({.threads = 1});
  const std::int64_t signs = std::int64_t{1} << 31, words = std::int64_t{1} << 32;
  const auto index = [&](std::int64_t length, DType dtype) {
    return iota({2, length}, 1, dtype, device);
  };
  for (const auto& [dtype, longest] :
       {std::pair{DType::i32, signs}, std::pair{DType::u32, words}}) {
    CHECK_NOTHROW(index(longest, dtype));
    CHECK_THAT(message_of<ShapeError>([&] { index(longest + 1, dtype); }),
               has_text("iota: " + std::string(to_string(dtype)) + " can't count an axis of " +
                        std::to_string(longest + 1) + " elements"));
  }
  CHECK_NOTHROW(index(words + 1, DType::f32));  // rounded
  CHECK_NOTHROW(iota({words, 2}, 1, DType::i32, device));
  const auto sorted = [&](std::int64_t length) {
    return make_node(Op::argsort, SortAttributes{0, false}, {zeros({length}, DType::f32, device)});
  };
  const auto largest_of = [&](std::int64_t length) {
    return argmax(zeros({length}, DType::f32, device), 0);
  };
  CHECK_NOTHROW(sorted(signs));
  CHECK_NOTHROW(largest_of(signs));
  const char* const said = "positions are i32, and the axis has more than 2^31 elements";
  CHECK_THAT(message_of<ShapeError>([&] { sorted(signs + 1); }), has_text(said));
  CHECK_THAT(message_of<ShapeError>([&] { largest_of(signs + 1); }), has_text(said));
}
