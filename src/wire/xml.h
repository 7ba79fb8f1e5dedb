// SPDX-License-Identifier: Apache-2.0
// The little of XML that S3 answers with: elements, text, attributes that nobody reads.
//
// Contract:
//  V1  Takes any bytes. A document that is deeper, has more elements or longer texts than the
//      limits below is refused, and so is one with a DTD, or entities other than XML's own five and
//      numbers.
//  V2  Names lose their namespace prefix. Text is that of the element itself, children left out.
//
// Does not validate names, does not know encodings other than UTF-8 (which it does not check).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace firn::wire {

inline constexpr size_t kXmlBytesMax = size_t{4} * 1024 * 1024;
inline constexpr size_t kXmlDepthMax = 12;
inline constexpr size_t kXmlElementsMax = 50'000;
inline constexpr size_t kXmlTextMax = 8 * 1024;

struct XmlElement {
  std::string name;
  std::string text;
  std::vector<XmlElement> children;

  const XmlElement* child(std::string_view wanted) const;
  // The text of a child, or nothing.
  std::string_view text_of(std::string_view wanted) const;
};

Result<XmlElement> parse_xml(std::string_view text);
// "<" becomes "&lt;", and so on.
std::string xml_escaped(std::string_view text);

}  // namespace firn::wire
