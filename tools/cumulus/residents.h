// Residents: what lives in a volume's daemon between commands (mounts, NBD servers) and keeps it from ending.
//
// The daemon asks them, through one list, to write out what their clients still hold, to say which datasets
// are attached, and to end. Residents belong to whoever made them; the list only knows them. Reactor thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/io/sync.h"
#include "objectstore/io/task.h"
#include "tools/cumulus/home.h"

namespace cumulus {

class Resident {
 public:
  virtual ~Resident() = default;

  virtual std::string kind() const = 0;  // "mount", "nbd"
  virtual Json describe() const = 0;     // for `ls` and for people; has "kind"
  // True while the dataset's head is in use by it: rollback, shrink and removal are refused then.
  virtual bool holds(DatasetId dataset) const = 0;
  // Brings into the volume what was promised to clients and is still outside it (a kernel's dirty pages), so
  // that a snapshot or a sync that follows includes it. May be called while stop() runs.
  virtual Task<Status> write_out() = 0;
  // Tells its clients that it is to end, without waiting: before several are stopped one after the other.
  virtual void begin_stop() {}
  // Ends it as politely as it allows, and returns when it has ended and left the list.
  virtual Task<void> stop() = 0;
};

class Residents {
 public:
  void add(Resident& resident);
  void remove(Resident& resident);

  bool has(const Resident* resident) const;
  // Names one of them for as long as the daemon lives: addresses and images come back.
  std::uint64_t next_number() { return ++numbers_; }
  bool empty() const { return list_.empty(); }
  const std::vector<Resident*>& list() const { return list_; }
  // The first that holds the dataset, or nullptr.
  const Resident* holder_of(DatasetId dataset, const Resident* except = nullptr) const;
  // Refuses (exists) with a message that names the holder: "'v/main' is in use by the mount /mnt: ...".
  // `except` may hold it: whoever asks for itself.
  Status check_free(DatasetId dataset, const std::string& name, const Resident* except = nullptr) const;
  Json describe() const;
  // All of them, one after the other; the first failure is returned after all were asked.
  Task<Status> write_out();
  Task<void> stop_all();

 private:
  std::vector<Resident*> list_;
  std::uint64_t numbers_ = 0;
};

// A resident that lives as long as one request's work: in the list from its making to its end.
class WorkingResident : public Resident {
 public:
  // Both outlive it.
  WorkingResident(Runtime& runtime, Residents& residents);
  ~WorkingResident() override;
  WorkingResident(const WorkingResident&) = delete;
  WorkingResident& operator=(const WorkingResident&) = delete;

  Task<Status> write_out() override { co_return Status(); }
  // Asks the work to end, and waits until it has.
  Task<void> stop() override;

 protected:
  Residents& residents() { return residents_; }
  // Makes the work end sooner than by itself, if it can.
  virtual void ask_to_end() {}

 private:
  struct Ending;  // outlives the resident: stop() waits on it
  Residents& residents_;
  std::shared_ptr<Ending> ending_;
};

}  // namespace cumulus
