#include "tests/model/block_model.h"

#include <algorithm>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

std::string difference(const std::string& what, const Bytes& expected, const Bytes& found) {
  if (expected.size() != found.size())
    return format("{}: {} bytes instead of {}", what, found.size(), expected.size());
  const auto at = std::ranges::mismatch(expected, found);
  if (at.in1 == expected.end()) return "";
  return format("{}: byte {} is {} instead of {}", what, at.in1 - expected.begin(), *at.in2, *at.in1);
}

}  // namespace

ByteView BlockModel::bytes(const std::string& image, const std::string& snapshot, std::uint64_t offset,
                           std::uint64_t length) const {
  const auto at = images.find(image);
  if (at == images.end()) return {};
  const auto old = at->second.snapshots.find(snapshot);
  if (!snapshot.empty() && old == at->second.snapshots.end()) return {};
  const ByteView all = snapshot.empty() ? *at->second.head : *old->second;
  return offset + length <= all.size() ? all.subspan(offset, length) : ByteView();
}

std::string difference(const BlockModel& expected, const BlockModel& found) {
  for (const auto& [name, image] : found.images)
    if (!expected.images.contains(name)) return format("there is an image {} too many", name);
  for (const auto& [name, image] : expected.images) {
    const auto other = found.images.find(name);
    if (other == found.images.end()) return format("image {} is missing", name);
    for (const auto& [snapshot, disk] : other->second.snapshots)
      if (!image.snapshots.contains(snapshot)) return format("there is {}@{} too many", name, snapshot);
    for (const auto& [snapshot, disk] : image.snapshots) {
      const auto old = other->second.snapshots.find(snapshot);
      if (old == other->second.snapshots.end()) return format("{}@{} is missing", name, snapshot);
      if (auto text = difference(format("{}@{}", name, snapshot), *disk, *old->second); !text.empty())
        return text;
    }
    if (auto text = difference(name, *image.head, *other->second.head); !text.empty()) return text;
  }
  return "";
}

void BlockRequest::apply(BlockModel& model) const {
  if (!changes_model()) return;
  if (kind == Kind::snapshot) {
    for (const std::string& image : images) {
      auto& disk = model.images.at(image);
      disk.snapshots[name] = disk.head;
    }
    return;
  }
  auto& image = model.images.at(images.front());
  if (kind == Kind::change) {
    Bytes head = *image.head;
    for (const Part& part : parts) {
      const auto at = head.begin() + static_cast<std::ptrdiff_t>(part.offset);
      if (part.data)
        std::ranges::copy(*part.data, at);
      else
        std::fill_n(at, part.length, std::uint8_t{0});
    }
    image.head = std::make_shared<const Bytes>(std::move(head));
  } else if (kind == Kind::clone) {
    model.images[clone].head = image.snapshots.at(name);
  } else if (kind == Kind::resize) {
    Bytes head = *image.head;
    head.resize(size);
    image.head = std::make_shared<const Bytes>(std::move(head));
  } else if (kind == Kind::roll_back) {
    image.head = image.snapshots.at(name);
  } else if (kind == Kind::remove_snapshot) {
    image.snapshots.erase(name);
  } else if (kind == Kind::remove_image) {
    model.images.erase(images.front());
  }
}

std::string BlockRequest::text() const {
  const std::string& image = images.front();
  std::string said;
  switch (kind) {
    case Kind::change:
      said = "change " + image;
      for (const Part& part : parts)
        said += format(" {}{}+{}", part.data ? "" : "zero ", part.offset, part.length);
      return said + (durable ? " FUA" : "");
    case Kind::flush:
      return "flush " + image;
    case Kind::snapshot:
      for (const std::string& one : images) said += " " + one;
      return format("snapshot {} of{}", name, said);
    case Kind::clone:
      return format("clone {}@{} as {}", image, name, clone);
    case Kind::resize:
      return format("resize {} to {}", image, size);
    case Kind::roll_back:
      return format("roll {} back to {}", image, name);
    case Kind::remove_snapshot:
      return format("remove {}@{}", image, name);
    case Kind::remove_image:
      return format("remove {}", image);
    case Kind::flatten:
      return format("flatten {}", image);
  }
  return "";
}

}  // namespace cumulus
