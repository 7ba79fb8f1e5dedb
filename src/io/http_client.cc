// SPDX-License-Identifier: Apache-2.0
#include "io/http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <mutex>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "io/host_event.h"

namespace firn {
namespace {

constexpr size_t kHeadersMax = 64;
constexpr size_t kHeaderBytesMax = 1024;
constexpr long kBufferBytes = 512L * 1024;

long milliseconds(Duration duration) {
  return static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

}  // namespace

const std::string& HttpCall::header(const std::string& name) const {
  static const std::string none;
  const auto found = answer.find(name);
  return found == answer.end() ? none : found->second;
}

// What wakes the fiber that asked.
struct HttpClient::Signal {
  Fd fd;
  std::unique_ptr<Event> event;
};

class HttpClient::Worker {
 public:
  struct Transfer {
    HttpCall& call;
    int signal_fd = -1;
    std::atomic<bool> done = false;
    size_t slice = 0, inside = 0;  // How far the body has been sent.
    curl_slist* headers = nullptr;
  };

  explicit Worker(Settings settings) : settings_(std::move(settings)) {
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "libcurl does not start");
    multi_ = curl_multi_init();
    CHECK(multi_ != nullptr);
    curl_multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                      static_cast<long>(settings_.connections_max));
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(settings_.connections_max));
    // Signals are the daemon's business.
    sigset_t all, before;
    sigfillset(&all);
    CHECK(::pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    thread_ = std::thread([this] { work(); });
    CHECK(::pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  }

  ~Worker() {
    {
      const std::lock_guard hold(mutex_);
      ending_ = true;
    }
    curl_multi_wakeup(multi_);
    thread_.join();
    for (CURL* easy : idle_) curl_easy_cleanup(easy);
    curl_multi_cleanup(multi_);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void give(Transfer& transfer) {
    {
      const std::lock_guard hold(mutex_);
      given_.push_back(&transfer);
    }
    curl_multi_wakeup(multi_);
  }

 private:
  void work() {
    std::vector<Transfer*> fresh;
    for (;;) {
      {
        const std::lock_guard hold(mutex_);
        if (ending_) return;
        fresh.swap(given_);
      }
      for (Transfer* transfer : fresh) start(*transfer);
      fresh.clear();
      int running = 0;
      CHECK(curl_multi_perform(multi_, &running) == CURLM_OK);
      finish_those_that_ended();
      CHECK(curl_multi_poll(multi_, nullptr, 0, 1'000'000, nullptr) == CURLM_OK);
    }
  }

  void finish_those_that_ended() {
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      CURL* easy = message->easy_handle;
      const CURLcode code = message->data.result;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
      curl_multi_remove_handle(multi_, easy);
      finish(*transfer, easy, code);
    }
  }

  void start(Transfer& transfer) {
    CURL* easy = nullptr;
    if (idle_.empty()) {
      easy = curl_easy_init();
      CHECK(easy != nullptr);
    } else {
      easy = idle_.back();
      idle_.pop_back();
    }
    set_up(easy, transfer);
    CHECK(curl_multi_add_handle(multi_, easy) == CURLM_OK);
  }

  void set_up(CURL* easy, Transfer& transfer) {
    HttpCall& call = transfer.call;
    for (const auto& [name, value] : call.headers) {
      transfer.headers = curl_slist_append(transfer.headers, (name + ": " + value).c_str());
    }
    // What libcurl would add by itself, and a server might count as unsigned or wait for.
    for (const char* none : {"Expect:", "Content-Type:", "Accept:"}) {
      transfer.headers = curl_slist_append(transfer.headers, none);
    }
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
    curl_easy_setopt(easy, CURLOPT_URL, call.url.c_str());
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call.method.c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, settings_.proxy.c_str());
    curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    if (!settings_.ca.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, settings_.ca.c_str());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kBufferBytes);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, kBufferBytes);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(settings_.connect_deadline));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(call.deadline));
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
                     std::max(1L, milliseconds(settings_.stall_deadline) / 1000));
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, call.fresh ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
    if (call.method == "HEAD") curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    if (call.method != "PUT" && call.method != "POST") return;
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(total_of(call.body)));
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, &on_send);
    curl_easy_setopt(easy, CURLOPT_READDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, &on_rewind);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, &transfer);
  }

  void finish(Transfer& transfer, CURL* easy, CURLcode code) {
    HttpCall& call = transfer.call;
    if (code == CURLE_OK) {
      call.end = HttpCall::End::answered;
    } else {
      // Set to too_long before, by whoever refused the bytes.
      if (call.end != HttpCall::End::too_long) call.end = end_of(code);
      call.why = curl_easy_strerror(code);
    }
    curl_easy_reset(easy);  // Connections stay: they are the multi handle's.
    idle_.push_back(easy);
    curl_slist_free_all(transfer.headers);
    // From here on the fiber may be gone with everything.
    const int fd = transfer.signal_fd;
    transfer.done.store(true, std::memory_order_release);
    give_signal(fd);
  }

  static HttpCall::End end_of(CURLcode code) {
    switch (static_cast<int>(code)) {
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_RESOLVE_PROXY:
      case CURLE_COULDNT_CONNECT:
        return HttpCall::End::not_sent;
      case CURLE_PEER_FAILED_VERIFICATION:
      case CURLE_SSL_CACERT_BADFILE:
      case CURLE_SSL_CERTPROBLEM:
      case CURLE_URL_MALFORMAT:
      case CURLE_UNSUPPORTED_PROTOCOL:
        return HttpCall::End::refused;
      default:
        return HttpCall::End::lost;
    }
  }

  static Transfer& of(void* data) { return *static_cast<Transfer*>(data); }

  static size_t on_header(char* line, size_t, size_t count, void* data) {
    HttpCall& call = of(data).call;
    std::string_view text(line, count);
    while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
    if (text.starts_with("HTTP/")) {
      call.answer.clear();
      call.status = 0;
      const size_t space = text.find(' ');
      const std::string_view code =
          space == std::string_view::npos ? std::string_view() : text.substr(space + 1, 3);
      std::from_chars(code.data(), code.data() + code.size(), call.status);
      return count;
    }
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos || text.size() > kHeaderBytesMax ||
        call.answer.size() >= kHeadersMax) {
      return count;
    }
    std::string name(text.substr(0, colon));
    std::ranges::transform(name, name.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    text.remove_prefix(colon + 1);
    while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
    call.answer[std::move(name)] = text;
    return count;
  }

  static size_t on_body(char* bytes, size_t, size_t count, void* data) {
    HttpCall& call = of(data).call;
    const bool as_text = call.body_is_text || call.status / 100 != 2;
    const size_t room = as_text
                            ? call.text_bytes_max - std::min(call.text.size(), call.text_bytes_max)
                            : call.into.size() - call.got;
    if (count > room) {
      call.end = HttpCall::End::too_long;
      return 0;
    }
    if (as_text) {
      call.text.append(bytes, count);
    } else {
      std::memcpy(call.into.data() + call.got, bytes, count);
      call.got += count;
    }
    return count;
  }

  static size_t on_send(char* into, size_t, size_t room, void* data) {
    Transfer& transfer = of(data);
    const Iovec body = transfer.call.body;
    size_t filled = 0;
    while (filled < room && transfer.slice < body.size()) {
      const ::iovec& slice = body[transfer.slice];
      const size_t step = std::min(room - filled, slice.iov_len - transfer.inside);
      if (step > 0) {
        std::memcpy(into + filled, static_cast<const char*>(slice.iov_base) + transfer.inside,
                    step);
      }
      filled += step;
      transfer.inside += step;
      if (transfer.inside == slice.iov_len) {
        ++transfer.slice;
        transfer.inside = 0;
      }
    }
    return filled;
  }

  static int on_rewind(void* data, curl_off_t offset, int origin) {
    if (origin != SEEK_SET || offset != 0) return CURL_SEEKFUNC_CANTSEEK;
    of(data).slice = of(data).inside = 0;
    return CURL_SEEKFUNC_OK;
  }

  Settings settings_;
  CURLM* multi_ = nullptr;
  std::vector<CURL*> idle_;  // The thread's.
  std::mutex mutex_;
  std::vector<Transfer*> given_;
  bool ending_ = false;
  std::thread thread_;
};

HttpClient::HttpClient(Settings settings)
    : calls_max_(settings.connections_max),
      worker_(std::make_unique<Worker>(std::move(settings))) {}
HttpClient::~HttpClient() = default;

void HttpClient::ask(Io& io, HttpCall& call) {
  while (calls_ >= calls_max_) io.park(waiters_);
  ++calls_;
  std::unique_ptr<Signal> signal;
  if (signals_.empty()) {
    signal = std::make_unique<Signal>();
    Result<Fd> fd = make_event_fd();
    CHECK(fd, "{}", text_of(fd.error()));
    signal->fd = fd.take();
    Result<Fd> other = duplicate(signal->fd.get());
    CHECK(other, "{}", text_of(other.error()));
    signal->event = adopt_event(other.take()).take();
  } else {
    signal = std::move(signals_.back());
    signals_.pop_back();
  }
  Worker::Transfer transfer{.call = call, .signal_fd = signal->fd.get()};
  worker_->give(transfer);
  while (!transfer.done.load(std::memory_order_acquire)) {
    const Result<void> woken = io.wait(*signal->event);
    CHECK(woken, "{}", text_of(woken.error()));
  }
  signals_.push_back(std::move(signal));
  --calls_;
  io.wake(waiters_, 1);
}

}  // namespace firn
