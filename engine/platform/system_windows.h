// Windows: handles that close themselves, and its errors as text. Included by *_windows.cpp only.
#pragma once

#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

#include <filesystem>
#include <string>
#include <utility>

#include "engine/error.h"

namespace fluxion {

// UTF-8, without the line end that the system adds.
inline std::string reason_of(DWORD error) {
  wchar_t wide[512];
  DWORD length =
      ::FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr, error,
                       0, wide, static_cast<DWORD>(std::size(wide)), nullptr);
  while (length > 0 && (wide[length - 1] == L'\r' || wide[length - 1] == L'\n' ||
                        wide[length - 1] == L' ' || wide[length - 1] == L'.'))
    --length;
  char text[2048];
  const int bytes = ::WideCharToMultiByte(CP_UTF8, 0, wide, static_cast<int>(length), text,
                                          static_cast<int>(std::size(text)), nullptr, nullptr);
  if (bytes <= 0) return "error " + std::to_string(error);
  return std::string(text, static_cast<std::size_t>(bytes));
}

// The system would read such a path up to its first NUL.
inline void refuse_nul(const std::filesystem::path& path, const char* doing) {
  const std::size_t end = path.native().find(L'\0');
  if (end != std::wstring::npos)
    throw IoError(std::string(doing) + " " +
                  std::filesystem::path(path.native().substr(0, end)).string() +
                  "..: a path can't hold the character NUL");
}

class Handle {
 public:
  explicit Handle(HANDLE value = INVALID_HANDLE_VALUE)
      : value_(value ? value : INVALID_HANDLE_VALUE) {}
  ~Handle() {
    if (*this) ::CloseHandle(value_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  explicit operator bool() const { return value_ != INVALID_HANDLE_VALUE; }
  HANDLE get() const { return value_; }
  HANDLE release() { return std::exchange(value_, INVALID_HANDLE_VALUE); }

 private:
  HANDLE value_;
};

}  // namespace fluxion
