#include "models/files/file_kind.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "models/files/gz.h"
#include "models/files/lower_case.h"
#include "models/files/npy.h"
#include "models/files/zip.h"

namespace fluxion {

namespace {

using namespace std::string_view_literals;

constexpr std::size_t looked_at = 1024;

constexpr const char* picture_advice = "give the folder of pictures, with a sub-folder a class";
constexpr const char* other_picture_advice =
    "folders of PNG and JPEG pictures are read; convert it, and give the folder";
constexpr const char* checkpoint_advice =
    "scripts/convert_checkpoint.py makes weights a safetensors file for fluxion import; save data "
    "with numpy.save(\"x.npy\", torch.load(FILE).numpy())";
constexpr const char* pickle_advice =
    "a pickle can run code, so it is not read; load it where you trust it, and "
    "numpy.save(\"x.npy\", "
    "array)";
constexpr const char* unpack_advice = "unpack it, and give the folder or file in it";

struct Magic {
  std::size_t at;
  std::string_view bytes;
  const char *what, *advice;
  FileKind kind = FileKind::foreign;
};
constexpr Magic magics[] = {
    {0, "\x89PNG\r\n\x1a\n"sv, "a PNG picture", picture_advice},
    {0, "\xff\xd8\xff"sv, "a JPEG picture", picture_advice},
    {0, "GIF8"sv, "a GIF picture", other_picture_advice},
    {0, "BM"sv, "a BMP picture", other_picture_advice},
    {8, "WEBPVP8"sv, "a WebP picture", other_picture_advice},
    {4, "ftypavif"sv, "an AVIF picture", other_picture_advice},
    {4, "ftypavis"sv, "an AVIF picture", other_picture_advice},
    {4, "ftypheic"sv, "a HEIC picture", other_picture_advice},
    {4, "ftypheix"sv, "a HEIC picture", other_picture_advice},
    {4, "ftypmif1"sv, "a HEIC picture", other_picture_advice},
    {4, "ftyp"sv, "a video", "draw its frames as PNG pictures into a folder"},
    {0, "II*\0"sv, "a TIFF picture", other_picture_advice},
    {0, "MM\0*"sv, "a TIFF picture", other_picture_advice},
    {0, "\0\0\0\x0cjP  "sv, "a JPEG 2000 picture", other_picture_advice},
    {0, "\0\0\0\x0cJXL "sv, "a JPEG XL picture", other_picture_advice},
    {0, "\xff\x0a"sv, "a JPEG XL picture", other_picture_advice},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file",
     "numpy.save(\"x.npy\", h5py.File(FILE)[\"NAME\"][:]) saves one of its arrays"},
    {0, "MATLAB 7.3 MAT-file"sv, "a MATLAB file (version 7.3, HDF5)",
     "numpy.save(\"x.npy\", h5py.File(FILE)[\"NAME\"][:].T) saves one of its arrays"},
    {0, "MATLAB 5.0 MAT-file"sv, "a MATLAB file",
     "numpy.save(\"x.npy\", scipy.io.loadmat(FILE)[\"NAME\"]) saves one of its arrays"},
    {0, "PAR1"sv, "a Parquet file",
     "write its pictures into a folder, or numpy.save(\"x.npy\", array) of a column"},
    {0, "ARROW1"sv, "an Arrow file",
     "write its pictures into a folder, or numpy.save(\"x.npy\", array) of a column"},
    {0, "SQLite format 3\0"sv, "an SQLite data base", "write its pictures into a folder"},
    {0, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv,
     "a PyTorch checkpoint (of before version 1.6)", checkpoint_advice, FileKind::checkpoint},
    {0, "fluxsmpl"sv, "a sampler file, which fluxion sample and the runtime library draw from",
     "give the model (.safetensors) that it was exported from"},
    {0, "fluxgrph"sv, "a graph file, which fluxion graph --load reads", ""},
    {257, "ustar"sv, "a tar archive", unpack_advice},
    {0, "BZh"sv, "compressed with bzip2", unpack_advice},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "compressed with xz", unpack_advice},
    {0, "\x28\xb5\x2f\xfd"sv, "compressed with Zstandard", unpack_advice},
    {0, "\x1f\x9d"sv, "compressed with compress", unpack_advice},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", unpack_advice},
    {0, "Rar!\x1a\x07"sv, "a RAR archive", unpack_advice},
    {0, "GGUF"sv, "a GGUF file of weights", "the safetensors file that it was made of is read",
     FileKind::checkpoint},
    {0, "\xff\xfe"sv, "a text file in UTF-16", "save it as UTF-8 to see what it is"},
    {0, "\xfe\xff"sv, "a text file in UTF-16", "save it as UTF-8 to see what it is"},
    {0, "%PDF-"sv, "a PDF document", ""},
    {0, "version https://git-lfs.github.com"sv, "a Git LFS pointer, which stands for the file",
     "git lfs pull fetches the file itself", FileKind::stand_in},
};

bool starts_with(std::string_view text, std::string_view start) {
  return text.size() >= start.size() &&
         std::equal(start.begin(), start.end(), text.begin(),
                    [](char a, char b) { return a == lower_case(b); });
}

std::uint64_t number(std::string_view text, std::size_t bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, text.data(), bytes);
  return value;
}

// Records of TFRecord files start with their length and its masked CRC-32C
// (https://www.tensorflow.org/tutorials/load_data/tfrecord).
bool is_tfrecord(std::string_view text) {
  if (text.size() < 12) return false;
  std::uint32_t rest = 0xFFFFFFFFu;
  for (const char c : text.substr(0, 8)) {
    rest ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0x82F63B78u : 0u);
  }
  const std::uint32_t sum = ~rest;
  return number(text.substr(8), 4) == ((sum >> 15 | sum << 17) + 0xA282EAD8u);
}

// An opcode of the second protocol or a later one, then what starts nearly all pickles.
bool is_pickle(std::string_view text) {
  return text.size() > 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5;
}

bool is_idx(std::string_view text) {
  return text.size() >= 4 && text[0] == 0 && text[1] == 0 &&
         "\x08\x09\x0b\x0c\x0d\x0e"sv.find(text[2]) != text.npos && text[3] >= 1 && text[3] <= 8;
}

bool is_safetensors(std::string_view text) {
  return text.size() > 8 && text[8] == '{' && number(text, 8) <= 100'000'000;
}

bool is_text(std::string_view text) {
  return !text.empty() && std::none_of(text.begin(), text.end(), [](unsigned char c) {
    return (c < 32 && c != '\t' && c != '\n' && c != '\r' && c != '\f') || c == 127;
  });
}

FileDescription describe_text(std::string_view text) {
  while (!text.empty() && std::string_view("\xef\xbb\xbf \t\r\n").find(text[0]) != text.npos)
    text.remove_prefix(1);
  if (starts_with(text, "<!doctype html") || starts_with(text, "<html"))
    return {FileKind::stand_in, "a web page", "was the download refused? Open it to see"};
  if (starts_with(text, "{") && text.find("\"weight_map\"") != text.npos)
    return {FileKind::checkpoint, "the index of a checkpoint in several files",
            "join the files that it names with safetensors.torch.save_file"};
  if (starts_with(text, "{") || starts_with(text, "["))
    return {FileKind::foreign, "a text file (JSON)",
            "numpy.save(\"x.npy\", numpy.array(json.load(open(FILE)), \"f4\")) saves numbers in it",
            true};
  return {
      FileKind::foreign, "a text file",
      "numpy.save(\"x.npy\", numpy.loadtxt(FILE, delimiter=\",\", skiprows=1)) saves a table of "
      "numbers (skiprows=0 without a line of titles)",
      true};
}

std::string_view text_of_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

FileDescription describe_file(std::span<const std::byte> bytes) {
  const std::string_view text = text_of_bytes(bytes.first(std::min(bytes.size(), looked_at)));
  if (is_safetensors(text))
    return {FileKind::safetensors, "a safetensors file of weights",
            "fluxion import and fluxion inspect read it"};
  if (is_npy(bytes)) return {FileKind::npy, "a NumPy array", ""};
  if (is_zip(bytes)) return {FileKind::zip, "a zip archive", unpack_advice};
  if (is_gzip(bytes)) return {FileKind::gzip, "compressed with gzip", unpack_advice};
  if (is_idx(text)) return {FileKind::idx, "an IDX file", ""};
  const bool readable = is_text(text);
  for (const Magic& row : magics)
    if (text.size() >= row.at && text.substr(row.at).starts_with(row.bytes) &&
        !(readable && row.bytes.size() < 4))
      return {row.kind, row.what, row.advice};
  if (is_tfrecord(text))
    return {FileKind::foreign, "a TFRecord file",
            "write its pictures into a folder, or numpy.save(\"x.npy\", array)"};
  if (is_pickle(text)) return {FileKind::foreign, "a Python pickle", pickle_advice};
  if (readable) return describe_text(text);
  return {};
}

FileDescription describe_zip(std::span<const std::byte> bytes, std::string_view name) {
  const ZipArchive archive(bytes, name);
  std::size_t pictures = 0;
  for (const ZipMember& member : archive.members()) {
    const std::string file = lower_case(member.name);
    if (file == "data.pkl" || file.ends_with("/data.pkl"))
      return {FileKind::checkpoint, "a PyTorch checkpoint", checkpoint_advice};
    if (file == "[content_types].xml")
      return {FileKind::foreign, "an office document",
              "save the table as text, then numpy.save(\"x.npy\", numpy.loadtxt(..))"};
    if (file.starts_with("__macosx/")) continue;
    if (file.ends_with(".npy")) return {FileKind::zip, "an archive of NumPy arrays", ""};
    pictures += file.ends_with(".png") || file.ends_with(".jpg") || file.ends_with(".jpeg") ? 1 : 0;
  }
  return {FileKind::foreign,
          pictures > 0 ? "a zip archive of " + std::to_string(pictures) +
                             (pictures == 1 ? " picture" : " pictures")
                       : "a zip archive without arrays and pictures",
          unpack_advice};
}

}  // namespace fluxion
