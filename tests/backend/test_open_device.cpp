// Devices by name.
#include "backends/open_device.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("a device is opened by its name", "[backends][device]") {
  CHECK_THAT(open_device("cpu").name(), has_text("cpu ("));
  CHECK_THAT(open_device("cpu:1").name(), has_text("cpu (1 thread, "));
  CHECK_THAT(open_device("cpu:3").name(), has_text("cpu (3 threads, "));
  CHECK(open_device("reference").name() == "reference");
  for (const char* name : {"cpu:2", "reference"})
    CHECK((full({3}, 2, DType::f32, open_device(name)) * 2.0).to_host<float>() ==
          std::vector<float>(3, 4));
}

TEST_CASE("an unknown device is refused with the names there are", "[backends][device]") {
  for (const char* name :
       {"", "gpu", "CPU", "cpu:", "cpu:0", "cpu:-1", "cpu:x", "cpu:1x", "cpu:4097",
        "cpu:99999999999", "cpu:1:2", "reference:1", " cpu", "vulkan:", "vulkan:-1", "vulkan:x",
        "vulkan:256", "vulkan:0:1", "Vulkan"}) {
    CAPTURE(name);
    CHECK_THAT(
        message_of<DeviceError>([&] { open_device(name); }),
        has_text("'" + std::string(name) + "'") && has_text("cpu:N") && has_text("reference"));
  }
}
