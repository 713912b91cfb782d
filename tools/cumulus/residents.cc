#include "tools/cumulus/residents.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"

namespace cumulus {

void Residents::add(Resident& resident) { list_.push_back(&resident); }

void Residents::remove(Resident& resident) {
  const auto found = std::find(list_.begin(), list_.end(), &resident);
  CHECK(found != list_.end());
  list_.erase(found);
}

bool Residents::has(const Resident* resident) const {
  return std::find(list_.begin(), list_.end(), resident) != list_.end();
}

const Resident* Residents::holder_of(DatasetId dataset, const Resident* except) const {
  const auto found = std::find_if(list_.begin(), list_.end(),
                                  [&](const Resident* one) { return one != except && one->holds(dataset); });
  return found == list_.end() ? nullptr : *found;
}

Status Residents::check_free(DatasetId dataset, const std::string& name, const Resident* except) const {
  const Resident* holder = holder_of(dataset, except);
  if (holder == nullptr) return {};
  const Json about = holder->describe();
  return fail(ErrorKind::exists, format("'{}' is in use by the {} {}: end that first", name, holder->kind(),
                                        about.value("where", "of this volume's daemon")));
}

Json Residents::describe() const {
  Json all = Json::array();
  for (const Resident* one : list_) all.push_back(one->describe());
  return all;
}

Task<Status> Residents::write_out() {
  Status first;
  const std::vector<Resident*> now = list_;  // one may end while another writes
  for (Resident* one : now) {
    if (!has(one)) continue;
    const Status done = co_await one->write_out();
    if (!done && first) first = done;
  }
  co_return first;
}

Task<void> Residents::stop_all() {
  for (Resident* one : list_) one->begin_stop();
  while (!list_.empty()) {
    Resident* last = list_.back();
    co_await last->stop();
    CHECK(list_.empty() || list_.back() != last);
  }
}

struct WorkingResident::Ending {
  explicit Ending(Runtime& runtime) : changed(runtime) {}
  Signal changed;
  bool ended = false;
};

WorkingResident::WorkingResident(Runtime& runtime, Residents& residents)
    : residents_(residents), ending_(std::make_shared<Ending>(runtime)) {
  residents_.add(*this);
}

WorkingResident::~WorkingResident() {
  residents_.remove(*this);
  ending_->ended = true;
  ending_->changed.notify_all();
}

Task<void> WorkingResident::stop() {
  const std::shared_ptr<Ending> ending = ending_;
  ask_to_end();
  while (!ending->ended) co_await ending->changed.wait();
}

}  // namespace cumulus
