// A small check of pictures in text formats: is it XML, is it DOT?
#pragma once

#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace fluxion::testing {

// What is wrong with `text` as XML - tags that nest, quoted attributes named once, no stray & or <,
// known entities - or nothing.
inline std::string xml_fault(std::string_view text) {
  std::vector<std::string> open;
  bool had_root = false;
  const auto entity_ends = [&](std::size_t at) {
    for (const std::string_view entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
      if (text.substr(at).starts_with(entity)) return true;
    return false;
  };
  for (std::size_t at = 0; at < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[at]);
    if (c < 32 && c != '\n' && c != '\t')
      return "a control character at byte " + std::to_string(at);
    if (c == '&' && !entity_ends(at)) return "a stray & at byte " + std::to_string(at);
    if (c != '<') {
      if (open.empty() && !std::isspace(c)) return "text outside of the root";
      ++at;
      continue;
    }
    std::size_t end = at + 1;
    const bool closes = end < text.size() && text[end] == '/';
    if (closes) ++end;
    std::string name;
    while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end])))
      name += text[end++];
    if (name.empty()) return "a stray < at byte " + std::to_string(at);
    std::vector<std::string> attributes;
    while (end < text.size() && text[end] != '>' && text[end] != '/') {
      if (!std::isspace(static_cast<unsigned char>(text[end])))
        return "no space before an attribute of " + name;
      while (end < text.size() && std::isspace(static_cast<unsigned char>(text[end]))) ++end;
      std::string attribute;
      while (end < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '-'))
        attribute += text[end++];
      if (attribute.empty() || text.substr(end, 2) != "=\"") return "a broken attribute of " + name;
      for (const std::string& other : attributes)
        if (other == attribute) return name + " has " + attribute + " twice";
      attributes.push_back(attribute);
      for (end += 2; end < text.size() && text[end] != '"'; ++end)
        if (text[end] == '<' || (text[end] == '&' && !entity_ends(end)))
          return "an unescaped attribute of " + name;
      ++end;
    }
    const bool empty = end < text.size() && text[end] == '/';
    if (empty) ++end;
    if (end >= text.size() || text[end] != '>') return name + " does not end";
    if (closes) {
      if (open.empty() || open.back() != name) return "</" + name + "> closes nothing";
      open.pop_back();
    } else if (!empty) {
      if (open.empty() && had_root) return "two roots";
      open.push_back(name);
    }
    had_root = true;
    at = end + 1;
  }
  if (!open.empty()) return "<" + open.back() + "> stays open";
  return had_root ? "" : "no root";
}

// What is wrong with `text` as DOT: quotes and brackets that don't match.
inline std::string dot_fault(std::string_view text) {
  if (!text.starts_with("digraph {\n") || !text.ends_with("}\n")) return "not one digraph";
  std::string open;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\') {
        if (++at == text.size() || (text[at] != '"' && text[at] != '\\' && text[at] != 'n'))
          return "an unknown escape";
      } else if (c == '\n') {
        return "a line break within quotes";
      } else if (c == '"') {
        quoted = false;
      }
      continue;
    }
    if (c == '"') quoted = true;
    if (c == '{' || c == '[') open += c;
    if (c == '}' || c == ']') {
      if (open.empty() || open.back() != (c == '}' ? '{' : '[')) return "brackets that don't match";
      open.pop_back();
    }
  }
  return quoted ? "an open quote" : open.empty() ? "" : "an open bracket";
}

inline std::size_t occurrences(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size()))
    ++found;
  return found;
}

}  // namespace fluxion::testing
