// Fuzz target: what the readers of files make of hostile bytes. The first byte chooses the reader;
// whatever is wrong with the rest, it says so with an Error and touches nothing else.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "engine/error.h"
#include "engine/export/stored_graph.h"
#include "engine/program/program.h"
#include "models/files/file_kind.h"
#include "models/files/gz.h"
#include "models/files/idx.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/files/zip.h"
#include "models/json_text.h"
#include "tests/files/seal.h"

using namespace fluxion;

namespace {

void read(std::uint8_t reader, std::span<const std::byte> bytes) {
  switch (reader % 9) {
    case 0: {
      const SafetensorsFile file(bytes);
      return;
    }
    case 1:
      parse_npy(bytes);
      return;
    case 2:
      parse_npy_header(bytes);
      return;
    case 3:
      parse_idx(bytes);
      return;
    case 4:
      gunzip(bytes, 1 << 20);
      return;
    case 5:
      parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzz", true);
      return;
    case 6: {
      std::vector<std::byte> file(bytes.begin(), bytes.end());
      testing::seal(file);
      const StoredGraph graph = parse_graph(file);
      check(graph);
      serialise(graph);
      return;
    }
    case 8: {
      describe_file(bytes);
      const ZipArchive archive(bytes);
      for (const ZipMember& member : archive.members())
        if (member.size <= 1 << 20) archive.unpack(member);
      return;
    }
    default: {
      const Program program = parse_program(bytes);
      // What parses is exactly what was written.
      const std::vector<std::byte> again = serialise(program);
      if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) {
        std::fprintf(stderr, "a program's bytes are not those of what was parsed\n");
        std::abort();
      }
      verify(program);
      to_string(program);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    read(data[0], std::as_bytes(std::span(data + 1, size - 1)));
  } catch (const Error&) {
  }
  return 0;
}
