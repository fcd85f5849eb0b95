// Writes pictures for the fuzzer to start from: fluxion-fuzz-picture-seeds FOLDER. They are those
// of the corpus (tests/corpus), whole and broken.
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/corpus/pictures.h"

using namespace fluxion::testing;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const auto& pictures : {odd_pngs(), odd_jpegs()})
    for (const OddPicture& odd : pictures)
      std::ofstream(folder / std::to_string(number++), std::ios::binary)
          .write(reinterpret_cast<const char*>(odd.file.data()),
                 static_cast<std::streamsize>(odd.file.size()));
  return 0;
}
