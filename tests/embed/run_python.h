// Programs in Python that use the wrapper, for tests.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/files/scratch.h"

namespace fluxion::testing {

inline void write_bytes(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

#if defined(__unix__)

// What a program of this folder prints that runs in `folder`.
inline std::string run_python(const std::string& program, const ScratchFolder& folder) {
  const std::string command = "cd '" + folder.path().string() +
                              "' && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='" FLUXION_SOURCE_DIR
                              "/embed/python' FLUXION_RUNTIME='" FLUXION_RUNTIME_LIBRARY
                              "' python3 '" FLUXION_SOURCE_DIR "/tests/embed/'" +
                              program + " 2>&1";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "r"),
                                                             &::pclose);
  REQUIRE(pipe);
  std::string text;
  for (char part[512]; std::fgets(part, sizeof part, pipe.get());) text += part;
  return text;
}

#endif

}  // namespace fluxion::testing
