#include "objectstore/log/coalesce.h"

#include <map>
#include <utility>

namespace cumulus {
namespace {

class Coalescing {
 public:
  explicit Coalescing(std::vector<Change>& changes) : changes_(changes) {}

  void run() {
    for (std::size_t at = 0; at < changes_.size(); ++at) {
      if (absorbed(changes_[at])) continue;
      if (kept_ != at) changes_[kept_] = std::move(changes_[at]);
      note(changes_[kept_]);
      ++kept_;
    }
    changes_.resize(kept_);
  }

 private:
  // Its effect is now part of one before it.
  bool absorbed(Change& change) {
    if (auto* set = std::get_if<change::SetHeader>(&change)) {
      const auto found = headers_.find(set->object);
      if (found == headers_.end()) return false;
      Change& first = changes_[found->second];
      if (auto* create = std::get_if<change::Create>(&first))
        create->header = std::move(set->header);
      else
        std::get<change::SetHeader>(first).header = std::move(set->header);
      return true;
    }
    if (const auto* more = std::get_if<change::AddUsage>(&change)) {
      const auto found = usage_.find({more->id, more->tree});
      if (found == usage_.end()) return false;
      auto& sum = std::get<change::AddUsage>(changes_[found->second]);
      std::int64_t bytes = 0;
      std::int64_t objects = 0;
      if (__builtin_add_overflow(sum.bytes, more->bytes, &bytes) ||
          __builtin_add_overflow(sum.objects, more->objects, &objects))
        return false;
      sum.bytes = bytes;
      sum.objects = objects;
      return true;
    }
    return false;
  }

  // The change at kept_.
  void note(const Change& change) {
    if (const auto* create = std::get_if<change::Create>(&change)) {
      headers_[create->object] = kept_;
    } else if (const auto* set = std::get_if<change::SetHeader>(&change)) {
      headers_[set->object] = kept_;
    } else if (const auto* remove = std::get_if<change::Remove>(&change)) {
      headers_.erase(remove->object);
    } else if (const auto* usage = std::get_if<change::AddUsage>(&change)) {
      usage_[{usage->id, usage->tree}] = kept_;
    } else if (of_the_catalogue(change)) {
      headers_.clear();
      usage_.clear();
    }
  }

  static bool of_the_catalogue(const Change& change) {
    return std::visit([](const auto& c) { return requires { c.id; }; }, change);
  }

  std::vector<Change>& changes_;
  std::size_t kept_ = 0;                                              // changes before it stay
  std::map<ObjectRef, std::size_t> headers_;                          // where an object's header is set
  std::map<std::pair<DatasetId, std::uint32_t>, std::size_t> usage_;  // where a tree's usage is changed
};

}  // namespace

void coalesce(std::vector<Change>& changes) { Coalescing(changes).run(); }

}  // namespace cumulus
