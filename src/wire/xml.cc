// SPDX-License-Identifier: Apache-2.0
#include "wire/xml.h"

#include <charconv>
#include <utility>

#include "wire/text.h"

namespace firn::wire {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool is_blank(std::string_view text) {
  for (const char c : text) {
    if (!is_space(c)) return false;
  }
  return true;
}

// As UTF-8; false for what no document may contain.
bool append_code_point(uint32_t code, std::string& into) {
  if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  const auto tail = [&](int shift) { into += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    into += static_cast<char>(code);
  } else if (code < 0x800) {
    into += static_cast<char>(0xc0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    into += static_cast<char>(0xe0 | (code >> 12));
    tail(6), tail(0);
  } else {
    into += static_cast<char>(0xf0 | (code >> 18));
    tail(12), tail(6), tail(0);
  }
  return true;
}

class XmlParser {
 public:
  explicit XmlParser(std::string_view text) : rest_(text) {}

  Result<XmlElement> document() {
    if (rest_.size() > kXmlBytesMax) return wrong("is too long");
    if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);
    TRY(skip_misc());
    if (!take("<")) return wrong("does not begin with an element");
    XmlElement root;
    TRY(element(root, 1));
    TRY(skip_misc());
    if (!rest_.empty()) return wrong("has something after its end");
    return root;
  }

 private:
  Error wrong(const char* what) const {
    return fail(Errc::invalid, "XML {}, at '{}'", what, printable(rest_, 24));
  }
  bool take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  Result<void> skip_past(std::string_view token) {
    const size_t at = rest_.find(token);
    if (at == std::string_view::npos) return wrong("ends early");
    rest_.remove_prefix(at + token.size());
    return ok;
  }
  void skip_spaces() {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
  }
  // Comments, instructions and blanks around the root.
  Result<void> skip_misc() {
    for (;;) {
      skip_spaces();
      if (take("<?")) {
        TRY(skip_past("?>"));
      } else if (take("<!--")) {
        TRY(skip_past("-->"));
      } else if (rest_.starts_with("<!")) {
        return wrong("has a document type, which is not taken");
      } else {
        return ok;
      }
    }
  }

  Result<std::string_view> name() {
    size_t length = 0;
    while (length < rest_.size() && !is_space(rest_[length]) && rest_[length] != '>' &&
           rest_[length] != '/' && rest_[length] != '<' && rest_[length] != '=') {
      ++length;
    }
    if (length == 0 || length > 128) return wrong("has a name of no length, or too long");
    std::string_view found = rest_.substr(0, length);
    if (found.back() == ':') return wrong("has a name that is a prefix only");
    rest_.remove_prefix(length);
    const size_t colon = found.rfind(':');
    return colon == std::string_view::npos ? found : found.substr(colon + 1);
  }

  // The rest of a start tag; whether it was "/>".
  Result<bool> attributes() {
    for (;;) {
      skip_spaces();
      if (take("/>")) return true;
      if (take(">")) return false;
      TRY(name());
      skip_spaces();
      if (!take("=")) return wrong("has an attribute without a value");
      skip_spaces();
      if (take("\"")) {
        TRY(skip_past("\""));
      } else if (take("'")) {
        TRY(skip_past("'"));
      } else {
        return wrong("has an attribute without quotes");
      }
    }
  }

  Result<void> entity(std::string& into) {
    const size_t end = rest_.substr(0, 12).find(';');
    if (end == std::string_view::npos) return wrong("has an entity without an end");
    const std::string_view found = rest_.substr(0, end);
    constexpr std::pair<std::string_view, char> kKnown[] = {
        {"lt", '<'}, {"gt", '>'}, {"amp", '&'}, {"quot", '"'}, {"apos", '\''}};
    bool good = false;
    for (const auto& [known, character] : kKnown) {
      if (found != known) continue;
      into += character;
      good = true;
    }
    if (found.starts_with('#')) {
      const bool hex = found.size() > 1 && (found[1] == 'x' || found[1] == 'X');
      const std::string_view digits = found.substr(hex ? 2 : 1);
      uint32_t code = 0;
      const auto read =
          std::from_chars(digits.data(), digits.data() + digits.size(), code, hex ? 16 : 10);
      good = read.ec == std::errc() && read.ptr == digits.data() + digits.size() &&
             append_code_point(code, into);
    }
    if (!good) return wrong("has an unknown entity");
    rest_.remove_prefix(end + 1);
    return ok;
  }

  Result<void> text(XmlElement& into) {
    const size_t end = rest_.find_first_of("<&");
    into.text += rest_.substr(0, end);
    rest_.remove_prefix(std::min(end, rest_.size()));
    if (take("&")) TRY(entity(into.text));
    if (into.text.size() > kXmlTextMax) return wrong("has too long a text");
    return ok;
  }

  Result<void> character_data(XmlElement& into) {
    const size_t end = rest_.find("]]>");
    if (end == std::string_view::npos) return wrong("ends early");
    into.text += rest_.substr(0, end);
    rest_.remove_prefix(end + 3);
    if (into.text.size() > kXmlTextMax) return wrong("has too long a text");
    return ok;
  }

  // Its "<" is taken.
  Result<void> element(XmlElement& into, size_t depth) {
    if (depth > kXmlDepthMax) return wrong("is nested too deeply");
    if (++elements_ > kXmlElementsMax) return wrong("has too many elements");
    into.name = TRY(name());
    if (TRY(attributes())) return ok;
    for (;;) {
      if (rest_.empty()) return wrong("ends early");
      if (take("</")) {
        if (TRY(name()) != into.name) return wrong("closes another element than it opened");
        skip_spaces();
        if (!take(">")) return wrong("has an end tag without an end");
        if (!into.children.empty() && is_blank(into.text)) into.text.clear();
        return ok;
      }
      if (take("<!--")) {
        TRY(skip_past("-->"));
      } else if (take("<![CDATA[")) {
        TRY(character_data(into));
      } else if (take("<?")) {
        TRY(skip_past("?>"));
      } else if (take("<")) {
        TRY(element(into.children.emplace_back(), depth + 1));
      } else {
        TRY(text(into));
      }
    }
  }

  std::string_view rest_;
  size_t elements_ = 0;
};

}  // namespace

const XmlElement* XmlElement::child(std::string_view wanted) const {
  for (const XmlElement& element : children) {
    if (element.name == wanted) return &element;
  }
  return nullptr;
}

std::string_view XmlElement::text_of(std::string_view wanted) const {
  const XmlElement* found = child(wanted);
  return found == nullptr ? std::string_view() : std::string_view(found->text);
}

Result<XmlElement> parse_xml(std::string_view text) { return XmlParser(text).document(); }

std::string xml_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace firn::wire
