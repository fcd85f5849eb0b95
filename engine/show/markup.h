// What pictures in text formats have in common: text made safe for XML and DOT, numbers, and the
// room that a word takes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fluxion::show {

// For XML, between tags or in attributes: & < > " ' as entities. Characters that XML does not allow
// are dropped; bytes that are not UTF-8 become U+FFFD.
std::string xml_escaped(std::string_view text);

// For a quoted DOT string: backslashes and quotes escaped, a line break as \n, other control
// characters dropped.
std::string dot_escaped(std::string_view text);

// With at most one digit behind the point, and none where it is 0: "12", "12.5".
std::string coordinate(double value);

// "640 B", "1.6 KiB", "20.3 MiB".
std::string bytes_text(std::uint64_t bytes);

// At most `most` bytes of `text`, ending in "..." where something was cut; never inside a UTF-8
// character.
std::string shortened(std::string_view text, std::size_t most);

// Room in pixels for `text` in a sans-serif font of this size, on the generous side: whichever font
// the viewer has, it should fit.
double text_width(std::string_view text, double size);

}  // namespace fluxion::show
