#include "engine/error.h"
#include "engine/graph/shape.h"
#include "tests/catch.h"

using namespace fluxion;

TEST_CASE("a shape counts its elements", "[engine][shape]") {
  CHECK(Shape{}.elements() == 1);
  CHECK(Shape{2, 3, 4}.elements() == 24);
  CHECK(Shape{2, 0, 4}.elements() == 0);
}

TEST_CASE("row-major strides", "[engine][shape]") {
  CHECK(row_major_strides({2, 3, 4}) == Dims{12, 4, 1});
  CHECK(row_major_strides({}) == Dims{});
  CHECK(row_major_strides({5}) == Dims{1});
}

TEST_CASE("shapes and types print as they are written", "[engine][shape]") {
  CHECK(to_string(Shape{}) == "[]");
  CHECK(to_string(Shape{2, 3}) == "[2, 3]");
  CHECK(to_string(TensorType{{2, 3}, DType::f32}) == "f32[2, 3]");
  CHECK(to_string(TensorType{{}, DType::boolean}) == "bool[]");
}

TEST_CASE("a type knows its bytes", "[engine][shape]") {
  CHECK(TensorType{{2, 3}, DType::f32}.bytes() == 24);
  CHECK(TensorType{{}, DType::f64}.bytes() == 8);
  CHECK(TensorType{{7, 0}, DType::f64}.bytes() == 0);
}

TEST_CASE("a location prints as the file's base name and the line", "[engine][error]") {
  const Location here = Location::current();
  CHECK(to_string(here) == "test_shape.cpp:" + std::to_string(here.line()));
}
