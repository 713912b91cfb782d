// Connection: one client, from greeting to goodbye. Reads as much as is there, answers what memory can answer
// at once, gathers the writes that came together into one commit, and sends the replies of one wake-up in one
// system call. What must wait runs as a task of its own.
//
// Bounds: requests and bytes under way (Limits); output that the client does not take stops the reading of
// its requests; half a request that does not go on ends the connection. Reactor thread.
#pragma once

#include <deque>
#include <memory>

#include "blockdev/block_device.h"
#include "blockdev/nbd/negotiation.h"
#include "blockdev/nbd/stream.h"
#include "blockdev/nbd/transmission.h"
#include "objectstore/io/adaptive_poll.h"
#include "objectstore/io/sync.h"

namespace cumulus::nbd {

struct Limits {
  std::size_t connections_max = 512;
  std::size_t handshakes_max = 64;                    // not yet in transmission; the oldest ends first
  Duration handshake_max = std::chrono::seconds(10);  // from connect to transmission
  Duration payload_max = std::chrono::seconds(30);    // half a write or half an answer taken, then silence
  std::size_t progress_min = 1u << 20;                // of either, in that time; less is as good as silence
  Duration goodbye_max = std::chrono::seconds(5);     // replies not taken at the end, requests not begun
  std::size_t requests_max = 256;                     // of one client, waiting for disk or miners
  // Of one client, in those: so much of reads, and so much of writes; a larger one goes alone.
  std::uint64_t client_bytes_max = 16u << 20;
  std::uint64_t own_writes_max = 1u << 20;  // of one client's small writes, beside those
  std::size_t output_max = 4u << 20;        // of one client, not yet taken
};

// What connections share: the exports, and the memory.
class Host {
 public:
  virtual ~Host() = default;
  virtual std::vector<std::string> export_names() const = 0;
  // The device stays while anybody holds it. not_found, or why this client may not have it.
  virtual Task<Result<std::shared_ptr<BlockDevice>>> open_export(std::string name, std::string peer) = 0;
  virtual std::shared_ptr<TlsSettings> tls() const = 0;
};

// The payloads under way of all clients, of however many servers share it. In shares, so that nobody's reads
// wait for a log without room, and a client that is slow with a huge write holds up nothing but huge writes.
struct Memory {
  static constexpr std::uint64_t kHuge = 4u << 20;
  BufferPool buffers{256u << 10, 64};
  Semaphore reads;
  Semaphore small_writes;  // that are not accepted yet
  Semaphore large_writes;  // from their first byte until they are accepted
  Semaphore huge_writes;   // of more than kHuge
  // Answers that clients have not taken. At `untaken_max` no huge read begins, nor one for a client that has
  // answers to take; and who takes none is cut off, which nobody is while there is room.
  std::uint64_t untaken = 0;
  const std::uint64_t untaken_max;
  Memory(Runtime& runtime, std::uint64_t bytes_max)
      : reads(runtime, bytes_max / 8 * 3),
        small_writes(runtime, bytes_max / 16),
        large_writes(runtime, bytes_max / 16 * 3),
        huge_writes(runtime, bytes_max / 8 * 3),
        untaken_max(bytes_max / 2) {}
  bool is_crowded() const { return untaken >= untaken_max; }
};

struct Shared {
  Runtime& runtime;
  Limits limits;
  std::shared_ptr<Memory> memory;
  bool reconnect_safe = false;  // ServerOptions
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Shared& shared, Host& host, std::unique_ptr<Stream> stream, std::string peer);
  ~Connection();

  // Until the client is gone or end() has finished what was in flight.
  Task<void> serve();
  // Politely: what was received is answered, then it closes. After goodbye_max no more of it is begun, and a
  // client that has answers left to take by then is cut off.
  void end();
  void cut();

  bool in_transmission() const { return device_ != nullptr; }
  const std::shared_ptr<BlockDevice>& device() const { return device_; }
  const std::string& peer() const { return peer_; }
  TimePoint since() const { return since_; }

 private:
  struct Piece {
    std::shared_ptr<Buffer> buffer;
    std::size_t from = 0;
    std::size_t to = 0;
  };
  // For the payloads of one commit, until it has returned.
  struct Room {
    Semaphore::Hold of_client;
    Semaphore::Hold of_all;
    bool here = false;
  };

  // --- connection.cc: the stream ---
  Task<bool> negotiate();
  Task<bool> look_up(Negotiation& talk);
  Task<bool> send_all(ByteView bytes);
  Task<void> transmit();
  Task<bool> fill();
  void make_room();
  bool take_small();
  Task<bool> take_large(Request request);
  void start_grace();
  void grace_over();
  Task<bool> wait_or_cut(Stream::Outcome outcome, TimePoint deadline);
  std::size_t available() const { return end_ - begin_; }

  // --- requests.cc: what each asks for ---
  void start(const Request& request, ByteView data, const std::shared_ptr<Buffer>& owner);
  void begin_task(Task<void> task);
  void task_done();
  bool is_full() const;
  void add_to_batch(const Request& request, ByteView data, std::shared_ptr<const void> owner);
  void commit_batch();
  bool try_room(std::uint64_t bytes, Room& room);
  Task<Room> room_for(std::uint64_t bytes);
  Task<void> commit_task(BlockBatch batch, std::vector<Request> requests, Room room);
  bool read_now(const Request& request);
  Task<void> read_task(Request request);
  Task<Code> read_parts(Request request, std::shared_ptr<Buffer> buffer,
                        std::vector<BlockDevice::Extent>& parts);
  Task<void> clear_task(Request request);
  Task<void> flush_task(Request request);
  Task<void> cache_task(Request request);
  Task<void> status_task(Request request);
  Task<Code> status_of(Context context, Request request, Bytes& body);

  // --- replies.cc: bytes out ---
  std::uint8_t* reserve(std::size_t size);
  void take(std::size_t size);
  void put_piece(Piece piece);
  void reply(const Request& request, Code code);
  void reply_data(const Request& request, std::shared_ptr<Buffer> buffer,
                  const std::vector<BlockDevice::Extent>& parts);
  void send_soon();
  void send_now();
  void taken(std::size_t bytes);
  bool has_output_room(std::uint64_t length) const;
  Task<void> output_room(std::uint64_t length);
  Task<void> send_when_writable();
  void start_patience(TimePoint until);
  void broken();

  Shared& shared_;
  Host& host_;
  std::unique_ptr<Stream> stream_;
  std::string peer_;
  TimePoint since_;
  AdaptivePoll poll_;
  std::shared_ptr<BlockDevice> device_;
  DeviceShape shape_;
  std::vector<Context> contexts_;

  std::shared_ptr<Buffer> input_;  // requests and small payloads; committed writes keep it alive
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  BlockBatch batch_;
  std::vector<Request> batched_;
  Room batch_room_;  // of a large write in the batch

  std::deque<Piece> output_;
  std::shared_ptr<Buffer> tail_;  // small replies are written here, one after the other
  std::size_t tail_used_ = 0;
  std::size_t output_bytes_ = 0;
  bool send_posted_ = false;
  bool sending_ = false;  // a task waits for room in the socket
  TimePoint slow_since_;  // less than Limits::progress_min was taken since; zero: nothing waits
  std::size_t progress_ = 0;
  TimerId patience_ = 0;  // while sending_
  bool broken_ = false;
  bool ending_ = false;
  bool late_ = false;         // ending for goodbye_max: no more requests are begun
  TimerId grace_ = 0;         // of end()
  bool out_of_step_ = false;  // the client does not speak the protocol
  bool goodbye_ = false;      // DISC
  std::size_t under_way_ = 0;
  std::size_t without_room_ = 0;  // of those: small writes that wait for room_for()

  Semaphore read_bytes_;
  Semaphore write_bytes_;  // a log without room holds writes up, not reads
  Semaphore own_writes_;   // small ones that need no room of what all share: nobody else holds these up
  Signal changed_;         // a task ended, output was taken, or broken
  TaskGroup tasks_;
};

Code code_of(BlockFault fault, bool changes);

}  // namespace cumulus::nbd
