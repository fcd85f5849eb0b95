#include "models/files/gz.h"

#include <zlib.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/error.h"

namespace fluxion {

namespace {

Bytef* bytef(const std::byte* data) {
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(data));
}

enum class Framing { gzip, none };

// What is wrong, in words, where zlib names one of the checks of the gzip format.
std::string plain_words(const char* message) {
  constexpr std::pair<std::string_view, std::string_view> words[] = {
      {"incorrect data check", "its checksum (CRC-32) is not that of what it holds"},
      {"incorrect length check", "the length that it states (ISIZE) is not that of what it holds"},
      {"header crc mismatch", "its header is damaged: the header's checksum is another"},
      {"unknown header flags set", "its header has flags that the format does not define"},
      {"unknown compression method", "its header names a compression other than deflate"}};
  if (message == nullptr) return "the stream is damaged";
  for (const auto& [theirs, ours] : words)
    if (theirs == message) return std::string(ours);
  return "the stream is damaged: " + std::string(message);
}

// One decompression. zlib counts in 32 bits, so both sides are fed in pieces.
class Inflater {
 public:
  Inflater(std::span<const std::byte> input, std::string_view name, Framing framing = Framing::gzip)
      : input_(input), name_(name), framing_(framing) {
    if (::inflateInit2(&stream_, framing == Framing::gzip ? 15 + 16 : -15) != Z_OK)
      throw OutOfMemory("decompressing " + name_ + ": zlib has no memory for its window");
  }
  ~Inflater() { ::inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Fills `output` as far as the stream goes and returns the bytes written; fewer than asked for
  // only at the end.
  std::size_t read(std::span<std::byte> output) {
    std::size_t written = 0;
    while (written < output.size() && !ended_) {
      if (stream_.avail_in == 0) {
        const std::size_t piece = std::min(input_.size(), largest_piece);
        stream_.next_in = bytef(input_.data());
        stream_.avail_in = static_cast<uInt>(piece);
        input_ = input_.subspan(piece);
      }
      const std::size_t room = std::min(output.size() - written, largest_piece);
      stream_.next_out = bytef(output.data() + written);
      stream_.avail_out = static_cast<uInt>(room);
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      written += room - stream_.avail_out;
      if (status == Z_STREAM_END) {
        next_member();
      } else if (status == Z_BUF_ERROR || (status == Z_OK && stream_.avail_in == 0 &&
                                           input_.empty() && stream_.avail_out > 0)) {
        fail("it ends early, inside the compressed data");
      } else if (status == Z_MEM_ERROR) {
        throw OutOfMemory("decompressing " + name_ + ": zlib has no memory for its window");
      } else if (status != Z_OK) {
        fail(plain_words(stream_.msg));
      }
    }
    return written;
  }

 private:
  static constexpr std::size_t largest_piece = std::size_t{1} << 30;

  // A gzip file may be several streams in a row, each with zeros behind it that fill blocks.
  void next_member() {
    const std::size_t left = stream_.avail_in + input_.size();
    std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(stream_.next_in), left);
    if (framing_ == Framing::none && left > 0)
      fail(std::to_string(left) + " bytes lie behind the end of the compressed data");
    rest = rest.subspan(static_cast<std::size_t>(
        std::find_if(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; }) -
        rest.begin()));
    stream_.avail_in = 0;
    input_ = rest;
    ended_ = rest.empty();
    if (ended_) return;
    if (!is_gzip(rest))
      fail(std::to_string(rest.size()) +
           " bytes behind its end are neither zeros nor another gzip member (damaged, or more than "
           "one file in a row?)");
    if (::inflateReset(&stream_) != Z_OK) fail("zlib can't start the next stream");
  }

  [[noreturn]] void fail(const std::string& what) {
    throw FormatError("decompressing " + name_ + ": " + what);
  }

  std::span<const std::byte> input_;
  std::string name_;
  Framing framing_;
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

namespace {

// All that there is, but at most `limit` bytes.
std::vector<std::byte> read_all(Inflater& inflater, std::size_t limit, std::string_view name) {
  std::vector<std::byte> result;
  // Grown as the data come: what is allocated is never far more than what the stream really held.
  for (std::size_t room = std::size_t{1} << 16;; room *= 2) {
    const std::size_t before = result.size();
    result.reserve(std::min(room, limit));  // and no more
    result.resize(std::min(room, limit));
    const std::size_t count = inflater.read(std::span(result).subspan(before));
    if (before + count < result.size()) {
      result.resize(before + count);
      return result;
    }
    if (result.size() == limit) {
      std::byte more;
      if (inflater.read({&more, 1}) != 0)
        throw FormatError("decompressing " + std::string(name) + ": it holds more than the " +
                          std::to_string(limit) + " bytes expected");
      return result;
    }
  }
}

std::vector<std::byte> read_first(Inflater& inflater, std::size_t count) {
  std::vector<std::byte> result(count);
  result.resize(inflater.read(result));
  return result;
}

}  // namespace

std::vector<std::byte> gunzip(std::span<const std::byte> bytes, std::size_t limit,
                              std::string_view name) {
  Inflater inflater(bytes, name);
  return read_all(inflater, limit, name);
}

std::vector<std::byte> gunzip_prefix(std::span<const std::byte> bytes, std::size_t count,
                                     std::string_view name) {
  Inflater inflater(bytes, name);
  return read_first(inflater, count);
}

std::vector<std::byte> inflate_raw(std::span<const std::byte> bytes, std::uint64_t size,
                                   std::string_view name) {
  Inflater inflater(bytes, name, Framing::none);
  std::vector<std::byte> result = read_all(inflater, size, name);
  if (result.size() != size)
    throw FormatError("decompressing " + std::string(name) + ": it holds " +
                      std::to_string(result.size()) + " bytes, not the " + std::to_string(size) +
                      " stated");
  return result;
}

std::vector<std::byte> inflate_raw_prefix(std::span<const std::byte> bytes, std::size_t count,
                                          std::string_view name) {
  Inflater inflater(bytes, name, Framing::none);
  return read_first(inflater, count);
}

std::vector<std::byte> gzip(std::span<const std::byte> bytes) {
  z_stream stream{};
  if (::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) !=
      Z_OK)
    throw OutOfMemory("compressing: zlib has no memory for its window");
  std::vector<std::byte> result;
  std::vector<std::byte> piece(std::size_t{1} << 16);
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0) {
      const std::size_t count = std::min(bytes.size(), std::size_t{1} << 30);
      stream.next_in = bytef(bytes.data());
      stream.avail_in = static_cast<uInt>(count);
      bytes = bytes.subspan(count);
    }
    stream.next_out = bytef(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    status = ::deflate(&stream, bytes.empty() ? Z_FINISH : Z_NO_FLUSH);
    result.insert(result.end(), piece.begin(), piece.end() - stream.avail_out);
  }
  ::deflateEnd(&stream);
  return result;
}

}  // namespace fluxion
