// Ending a volume. It is not done on an open one: nothing can be written while it goes on, and nothing goes
// on by itself when it failed.
//
// The ballot comes first: as long as too few holders promise it, no miner has heard of the mark, and the
// volume can be opened as before. Then DIR/destroying is made durable, then the mark is proposed: whether a
// quorum has it is not known before one says so, and until then nothing is deleted.
#include "objectstore/store/ending.h"

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/miner_sets.h"
#include "objectstore/object_store.h"
#include "objectstore/store/destroyer.h"
#include "objectstore/store/endable_transport.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/sealed_label.h"
#include "objectstore/store/tail_keeper.h"

namespace cumulus {
namespace {

constexpr Duration kPatience = std::chrono::seconds(30);
constexpr Duration kFarewell = std::chrono::seconds(2);
constexpr const char* kUnharmed = "nothing was destroyed, and the volume can be used as before: ";
constexpr const char* kUnfinished =
    "the volume is being destroyed and is closed for good: run 'cumulus volume destroy' again when the "
    "miners answer: ";

std::string mark_path(const std::string& directory) { return directory + "/destroying"; }

Error after(const char* what, const Error& error) { return {error.kind(), what + error.message()}; }

class Ending {
 public:
  Ending(VolumeParts& parts, const VolumeOptions& options)
      : parts_(parts),
        deadline_(options.request_deadline),
        id_(parts.keys.volume_id()),
        transport_(parts.transport),
        home_(parts.disk, parts.directory),
        stragglers_(parts.runtime) {}

  Task<Result<std::vector<std::string>>> run(Progress progress) {
    CO_TRY_OK(co_await home_.load(id_));
    std::optional<Superblock> mark = home_.record().seen;
    if (!mark || !mark->destroyed) {
      CO_TRY_OK(co_await spread_mark(progress));
      mark = tail_->accepted();
    }
    // Slices are wherever the volume last was, whatever list this home has.
    follow_list(transport_, parts_.keys, *mark, true);
    transport_.set_miners(with_guests(transport_.miners(), parts_.former_miners));
    Destroyer destroyer(parts_.runtime, transport_, *mark, deadline_);
    co_return co_await destroyer.delete_slices(std::move(progress));
  }

  Task<void> close() {
    // Called off: whoever could open the volume without force before can do so now.
    if (tail_ && tail_->claimed() && !begun_ && was_closed_) {
      const Status told = co_await tail_->close_cleanly(kFarewell);
      if (!told) log_warn("the miners were not told that the volume is closed: {}", told.error().message());
    }
    transport_.end(Calls::all);
    if (tail_) co_await tail_->close();
    co_await stragglers_.join();
  }

 private:
  Task<Status> spread_mark(const Progress& progress) {
    CO_TRY(begun_, parts_.disk.exists(mark_path(parts_.directory)));
    CO_TRY(const Survey survey, co_await survey_members(parts_.runtime, transport_, parts_.keys,
                                                        home_.record(), false, kPatience, stragglers_));
    CO_TRY_OK(may_begin(survey));
    was_closed_ = survey.newest->closed_cleanly;
    CO_TRY_OK(co_await claim(survey));
    if (!begun_) {
      // The last moment to think better of it.
      if (progress && !progress(0, 0))
        co_return fail(after(kUnharmed, Error(ErrorKind::closed, "interrupted")));
      const Bytes nothing;
      const Status noted = co_await parts_.disk.replace_file(mark_path(parts_.directory), nothing);
      if (!noted) co_return fail(after(kUnharmed, noted.error()));
      begun_ = true;
    }
    tail_->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
    const Status settled = co_await tail_->settled(kPatience);
    if (!settled) co_return fail(after(kUnfinished, settled.error()));
    co_return Status();
  }

  Status may_begin(const Survey& survey) {
    begun_ = begun_ || (survey.newest && survey.newest->destroyed);
    // Before anything is claimed: even a claim that comes to nothing ends the writing there.
    if (survey.quorum_reached && !survey.newest->destroyed && !survey.newest->closed_cleanly &&
        !home_.record().wrote(*survey.newest))
      return fail(ErrorKind::fenced, kUnharmed + format("it is in use by {}: close it there first",
                                                        describe_writer(parts_.keys, *survey.newest)));
    if (survey.quorum_reached) return {};
    std::string silent;
    for (const auto& [miner, error] : survey.errors) silent += "; " + said_by(miner, error);
    if (survey.errors.empty() && !survey.newest)
      return fail(ErrorKind::not_found, "none of the miners that are listed holds the volume");
    return fail(ErrorKind::unavailable,
                (begun_ ? kUnfinished : kUnharmed) +
                    format("too few miners that keep the superblock answered{}", silent));
  }

  // The miners' word on who may end the volume is the keeper's to judge.
  Task<Status> claim(const Survey& survey) {
    TailKeeper::Options options;
    options.request_deadline = deadline_;
    tail_ = std::make_unique<TailKeeper>(parts_.runtime, transport_, parts_.keys, home_, *survey.newest,
                                         transport_.miners(), parts_.writer_label, options, parts_.metrics,
                                         std::function<void(Error)>());
    InstanceId instance;
    parts_.runtime.random().fill(instance.bytes);
    const bool own = home_.record().wrote(*survey.newest);
    const Ballot ballot = home_.record().next_ballot(survey.highest, !own, instance);
    const Status claimed = co_await tail_->claim(ballot, Adopt::destroyed, kPatience);
    begun_ = begun_ || tail_->wants_destroyed();
    if (!claimed) co_return fail(after(begun_ ? kUnfinished : kUnharmed, claimed.error()));
    co_return Status();
  }

  VolumeParts& parts_;
  Duration deadline_;
  VolumeId id_;
  EndableTransport transport_;
  HomeFile home_;
  bool begun_ = false;       // some holder may have the mark
  bool was_closed_ = false;  // cleanly, by the newest record
  std::unique_ptr<TailKeeper> tail_;
  TaskGroup stragglers_;
};

}  // namespace

Error destroyed_error() {
  return {ErrorKind::fenced, "the volume was destroyed: 'cumulus volume destroy' deletes what is left of it"};
}

Status check_not_ending(FileSystem& disk, const std::string& directory, const HomeRecord& home) {
  if (home.seen && home.seen->destroyed) return fail(destroyed_error());
  TRY(const bool begun, disk.exists(mark_path(directory)));
  if (begun)
    return fail(
        ErrorKind::fenced,
        "the volume is being destroyed and is closed for good: 'cumulus volume destroy' finishes that");
  return {};
}

Task<Result<std::vector<std::string>>> Volume::destroy(VolumeParts parts, VolumeOptions options,
                                                       Progress progress) {
  CO_TRY_OK(options.validate());
  Ending ending(parts, options);
  auto left = co_await ending.run(std::move(progress));
  co_await ending.close();
  co_return left;
}

}  // namespace cumulus
