// SPDX-License-Identifier: Apache-2.0
// The one file that sees CLI11, which compiles slowly. Its exceptions end here.
#include "cmd/arguments.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <map>

#include "base/units.h"
#include "engine/settings.h"
#include "engine/version.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

constexpr int kUsage = 2;

std::string complaint(Error error) { return std::string(text_of(error)); }

CLI::Validator size_validator() {
  return CLI::Validator(
      [](std::string& text) {
        const Result<uint64_t> size = wire::parse_size(text);
        if (!size) return complaint(size.error());
        text = fmt::format("{}", *size);
        return std::string();
      },
      "SIZE");
}

// The PORT of HOST:PORT; 0 lets the kernel choose.
bool has_port(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view port = address.substr(colon + 1);
  if (port.empty() || port.size() > 5) return false;
  uint32_t number = 0;
  for (const char c : port) {
    if (c < '0' || c > '9') return false;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  return number <= 65535;
}

CLI::Validator listen_validator() {
  return CLI::Validator(
      [](std::string& text) {
        if (text.starts_with("unix:") && text.size() > 5) return std::string();
        if (text.starts_with("tcp:") && has_port(std::string_view(text).substr(4))) {
          return std::string();
        }
        return "\"" + wire::printable(text) + "\" is neither unix:PATH nor tcp:HOST:PORT";
      },
      "");
}

CLI::Validator port_validator() {
  return CLI::Validator(
      [](std::string& text) {
        return has_port(text) ? std::string()
                              : "\"" + wire::printable(text) + "\" is not HOST:PORT";
      },
      "");
}

CLI::Validator mode_validator() {
  return CLI::Validator(
      [](std::string& text) {
        const bool good = !text.empty() && text.size() <= 4 &&
                          text.find_first_not_of("01234567") == std::string::npos;
        return good ? std::string()
                    : "\"" + wire::printable(text) + "\" is no octal mode like 0660";
      },
      "");
}

class Parser {
 public:
  explicit Parser(Arguments& into) : into_(into) { build(); }
  int parse(int argc, char** argv);

 private:
  CLI::App* verb(CLI::App* noun, const char* name, const char* about, Command command,
                 bool prints = true);
  CLI::App* disk_verb(const char* name, const char* about, Command command,
                      const char* operand = "NAME");
  CLI::App* noun(const char* name, const char* about);
  void add_size(CLI::App* app, uint64_t& into, const char* about, bool required);
  void build();
  void build_pool();
  void build_serve();
  void build_disk();
  void build_transfers();
  void build_snapshot();
  void build_changes();
  void build_jobs();
  void build_archive_doctor(CLI::App* archive);
  void build_bench();
  void build_archive(CLI::App* noun);
  void add_key(CLI::App* app);
  void add_page(CLI::App* app);
  void add_background(CLI::App* app);
  bool take_settings();
  bool need_pool();
  int complain(const std::string& text);

  Arguments& into_;
  CLI::App app_{"Thin disks for virtual machines, served over vhost-user and NBD from a pool.",
                "firn"};
  CLI::App* disk_ = nullptr;
  std::string verb_;                // "pool create", for complaints
  std::string pool_operand_;        // DIR of pool and serve
  std::vector<std::string> pairs_;  // key=value
  std::string mode_ = "0660";
  std::string tls_ = "allowed";
  std::string level_ = "info";
  std::string log_format_ = "text";
  std::string vhost_mode_ = "0660";
  std::string tier_;
  bool stdio_ = false;
};

CLI::App* Parser::verb(CLI::App* noun, const char* name, const char* about, Command command,
                       bool prints) {
  CLI::App* app = noun->add_subcommand(name, about);
  if (prints) app->add_flag("--json", into_.json, "Print JSON");
  app->callback([this, app, command] {
    into_.command = command;
    verb_ = app->get_parent() == &app_ ? app->get_name()
                                       : app->get_parent()->get_name() + " " + app->get_name();
  });
  return app;
}

void Parser::add_size(CLI::App* app, uint64_t& into, const char* about, bool required) {
  CLI::Option* option =
      app->add_option("--size", into, about)->transform(size_validator())->type_name("SIZE");
  if (required) option->required();
}

void Parser::build() {
  app_.set_version_flag("--version",
                        fmt::format("firn {} ({})", engine::version(), engine::compiler()));
  app_.add_option("--pool", into_.pool, "The pool's directory, for all nouns but pool and serve")
      ->envname("FIRN_POOL")
      ->type_name("DIR");
  app_.require_subcommand(1);
  app_.fallthrough();
  app_.failure_message([](const CLI::App* app, const CLI::Error& error) {
    const std::vector<std::string> unknown = app->remaining(/*recurse=*/true);
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) &&
        !unknown.empty()) {
      return fmt::format("firn: \"{}\" is not known here; see firn --help\n", unknown.front());
    }
    return fmt::format("firn: {}; see firn --help\n", error.what());
  });
  build_pool();
  build_serve();
  build_disk();
  build_transfers();
  build_snapshot();
  build_changes();
  build_jobs();
  CLI::App* const archive =
      noun("archive", "Keep snapshots in a bucket: push, list, delete, clean");
  build_archive(archive);
  build_archive_doctor(archive);
  build_bench();
}

void Parser::build_pool() {
  CLI::App* pool = app_.add_subcommand("pool", "Make, look at, check and grow pools");
  pool->require_subcommand(1);
  pool->fallthrough();
  const auto with_dir = [this](CLI::App* app) {
    app->add_option("DIR", pool_operand_, "The pool's directory")->required();
    return app;
  };
  CLI::App* create =
      with_dir(verb(pool, "create", "Make a pool in a new directory", Command::pool_create));
  add_size(create, into_.shape.bytes, "Capacity; space is taken as it is needed (default 64G)",
           false);
  create
      ->add_option("--data", into_.shape.data_path, "Where the data lies: a file or a block device")
      ->type_name("PATH");
  create->add_option("--journal", into_.shape.journal, "Where the journal lies")
      ->type_name("file:PATH|pmem:PATH")
      ->check(CLI::Validator(
          [](std::string& text) {
            const bool good =
                (text.starts_with("file:") || text.starts_with("pmem:")) && text.size() > 5;
            return good ? std::string()
                        : "\"" + wire::printable(text) + "\" is neither file:PATH nor pmem:PATH";
          },
          ""));
  create
      ->add_option("--journal-size", into_.shape.journal_bytes, "Size of the journal (default 16M)")
      ->transform(size_validator())
      ->type_name("SIZE");
  create->add_option("--tier", tier_, "A fast tier; not in this version")->group("");
  with_dir(verb(pool, "info", "Show a pool: space by state, metadata, who serves it",
                Command::pool_info));
  CLI::App* check = with_dir(
      verb(pool, "check", "Recount every grain, block and page. Exit status 0 clean, 1 findings",
           Command::pool_check));
  check->add_flag("--repair", into_.repair, "Give leaked space back (no daemon may be running)");
  CLI::App* grow = with_dir(verb(pool, "grow", "Raise the capacity of a pool", Command::pool_grow));
  add_size(grow, into_.bytes, "The new capacity", true);
}

void Parser::build_serve() {
  engine::DaemonSettings& daemon = into_.daemon;
  CLI::App* serve = verb(&app_, "serve", "Serve all disks of a pool until SIGTERM or Ctrl-C",
                         Command::serve, /*prints=*/false);
  serve->add_option("DIR", pool_operand_, "The pool's directory")->required();
  serve->add_option("--nbd", daemon.nbd, "Listen for NBD here too; DIR/nbd.sock is always there")
      ->check(listen_validator())
      ->type_name("unix:PATH|tcp:HOST:PORT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  serve->add_option("--nbd-mode", mode_, "Permissions of the Unix sockets of --nbd (default 0660)")
      ->type_name("MODE")
      ->check(mode_validator());
  serve
      ->add_option("--http", daemon.http,
                   "Answer GET /metrics, /healthz and the reading part of the API here")
      ->check(port_validator())
      ->type_name("HOST:PORT");
  serve
      ->add_option("--tls-certificates", daemon.tls_certificates,
                   "TLS with ca-cert.pem, server-cert.pem and server-key.pem in this directory")
      ->type_name("DIR");
  serve->add_option("--tls-psk", daemon.tls_psk, "TLS with pre-shared keys: lines of USER:HEXKEY")
      ->type_name("FILE");
  serve->add_option("--tls", tls_, "Whether TCP clients must use TLS (default allowed)")
      ->check(CLI::IsMember({"required", "allowed"}));
  serve->add_option("--cache", daemon.pool.cache_bytes, "Metadata kept in memory (default 64M)")
      ->transform(size_validator())
      ->type_name("SIZE");
  serve->add_option("--log-level", level_, "debug, info, warning or error (default info)")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  serve->add_option("--log-format", log_format_, "text or json (default text)")
      ->check(CLI::IsMember({"text", "json"}));
  serve
      ->add_option("--vhost-user-dir", daemon.vhost.directory,
                   "A vhost-user-blk socket DIR/DISK.sock for each disk")
      ->type_name("DIR");
  serve
      ->add_option("--vhost-user-mode", vhost_mode_,
                   "Permissions of the vhost-user sockets (default 0660)")
      ->type_name("MODE")
      ->check(mode_validator());
  serve
      ->add_option("--vhost-user-owner", daemon.vhost.owner,
                   "Whose the vhost-user sockets are (default: who runs this)")
      ->type_name("USER:GROUP");
}

CLI::App* Parser::disk_verb(const char* name, const char* about, Command command,
                            const char* operand) {
  CLI::App* app = verb(disk_, name, about, command);
  app->add_option(operand, into_.name, "The disk")->required();
  return app;
}

void Parser::build_disk() {
  disk_ = noun("disk", "Make, clone, look at and change disks; import and export images");
  CLI::App* create = disk_verb("create", "Make an empty thin disk", Command::disk_create);
  add_size(create, into_.bytes, "What the guest sees", true);
  create->add_option("SETTING", pairs_, "Settings, as key=value");
  verb(disk_, "list", "List all disks", Command::disk_list);
  disk_verb("info", "Show one disk", Command::disk_info);
  CLI::App* resize =
      disk_verb("resize", "Grow a disk, or shrink one that nobody uses", Command::disk_resize);
  add_size(resize, into_.bytes, "The new size", true);
  CLI::App* rename = disk_verb("rename", "Give a disk another name", Command::disk_rename);
  rename->add_option("NEW", into_.to, "The new name")->required();
  // What an interrupted import left behind has a reserved name, and may be deleted by it.
  CLI::App* remove =
      verb(disk_, "delete", "Delete a disk that nobody uses, with its data", Command::disk_delete);
  remove->add_option("NAME", into_.name, "The disk")->required();
  remove->add_flag("--snapshots", into_.snapshots, "And all its snapshots; clones of them stay");
  add_background(remove);
  CLI::App* clone = verb(disk_, "clone", "Make a disk that begins as a snapshot; no data is copied",
                         Command::disk_clone);
  clone->add_option("DISK@SNAPSHOT", into_.name, "The snapshot")->required();
  clone->add_option("NEW", into_.to, "The new disk")->required();
  disk_verb("shrink", "Empty sparse storage blocks, and give free space back to the host",
            Command::disk_shrink)
      ->footer(
          "Of the disk and of everything that shares blocks with it (snapshots, clones). The disk "
          "may be in use.");
  CLI::App* consolidate = disk_verb(
      "consolidate", "Delete all but the newest snapshots, and wait until their space is back",
      Command::disk_consolidate);
  consolidate->add_option("--keep", into_.keep, "How many snapshots stay (0: none)")
      ->check(CLI::Range(uint64_t{0}, uint64_t{UINT32_MAX}))
      ->type_name("N");
  consolidate->footer(
      "Without --keep the disk's settings keep and chain say which snapshots go: none, unless they "
      "are set.\nNo data is moved. Interrupting it leaves the rest to the daemon, or to the next "
      "opening.");
  add_background(consolidate);
  CLI::App* set = disk_verb("set", "Change settings of a disk", Command::disk_set);
  set->add_option("SETTING", pairs_, "key=value; key= restores the default")->required();
  set->footer("Settings:\n" + engine::describe_settings());
  CLI::App* nbd =
      verb(&app_, "nbd", "Serve one disk to a client that started this command", Command::nbd,
           /*prints=*/false);
  nbd->add_option("DISK", into_.name, "The disk, or DISK@SNAPSHOT")->required();
  nbd->add_flag("--stdio", stdio_, "Speak NBD on standard input and output")->required();
}

void Parser::build_transfers() {
  CLI::App* import = disk_verb("import", "Make a disk from an image file", Command::disk_import);
  import->add_option("FILE", into_.file, "The image")->required();
  import->add_option("--format", into_.format, "What FILE is (default: found out from its content)")
      ->check(CLI::IsMember({"raw", "qcow2", "vmdk", "sesparse"}));
  import->add_flag("--follow-references", into_.follow_references,
                   "Let the image refer to files outside of its own directory");
  CLI::App* export_ =
      verb(disk_, "export", "Write a disk or a snapshot to an image file", Command::disk_export);
  export_->add_option("NAME", into_.name, "The disk, or DISK@SNAPSHOT")->required();
  export_->add_option("FILE", into_.file, "The image to make")->required();
  export_
      ->add_option("--format", into_.format,
                   "What FILE shall be (default: by its suffix, else raw)")
      ->check(CLI::IsMember({"raw", "qcow2", "vmdk", "sesparse"}));
  export_->add_flag("--force", into_.force, "Replace FILE when it is there");
}

CLI::App* Parser::noun(const char* name, const char* about) {
  CLI::App* app = app_.add_subcommand(name, about);
  app->require_subcommand(1);
  app->fallthrough();
  return app;
}

void Parser::add_background(CLI::App* app) {
  app->add_flag("--background", into_.background,
                "Return at once; the daemon, or the next opening, gives the space back");
}

void Parser::add_page(CLI::App* app) {
  app->add_option("--offset", into_.offset, "Begin here (default 0)")
      ->transform(size_validator())
      ->type_name("SIZE");
  app->add_option("--limit", into_.limit, "Print at most so many extents")
      ->check(CLI::Range(uint64_t{1}, UINT64_MAX))
      ->type_name("N");
}

void Parser::build_snapshot() {
  CLI::App* snapshot = noun("snapshot", "Make, look at, compare and delete snapshots; go back");
  const auto one = [&](const char* name, const char* about, Command command) {
    CLI::App* app = verb(snapshot, name, about, command);
    app->add_option("DISK@SNAPSHOT", into_.name, "The snapshot")->required();
    return app;
  };
  one("create", "Freeze a disk as it is now, in use or not", Command::snapshot_create)
      ->footer("Under a running guest it is what a power cut would leave: flush first (fsfreeze).");
  verb(snapshot, "list", "List the snapshots of a disk, oldest first", Command::snapshot_list)
      ->add_option("DISK", into_.name, "The disk")
      ->required();
  CLI::App* remove =
      one("delete", "Delete a snapshot nobody uses, and wait until its space is back",
          Command::snapshot_delete);
  remove->footer(
      "No data is moved, whichever snapshot it is. Interrupting it leaves the rest to "
      "the daemon, or to the next opening.");
  add_background(remove);
  CLI::App* revert = one("revert",
                         "Make a disk show again what a snapshot does; later writes are "
                         "lost",
                         Command::snapshot_revert);
  revert->add_flag("--force", into_.force,
                   "Even while clients use the disk: its content changes under them");
  CLI::App* diff = verb(snapshot, "diff", "Show where the second snapshot differs from the first",
                        Command::snapshot_diff);
  diff->add_option("DISK@A", into_.base, "A snapshot, or a disk as it is now")->required();
  diff->add_option("DISK@B", into_.name, "Another")->required();
  add_page(diff);
}

void Parser::build_changes() {
  CLI::App* changes = noun("changes", "What changed and what is there, for incremental backups");
  const auto of_disk = [&](const char* name, const char* about, Command command) {
    CLI::App* app = verb(changes, name, about, command);
    app->add_option("DISK", into_.name, "The disk")->required();
    return app;
  };
  const auto with_app = [this](CLI::App* app) {
    app->add_option("--app", into_.app, "Who backs up")->required()->type_name("APP");
    return app;
  };
  CLI::App* begin = with_app(
      of_disk("begin", "Begin a backup: prints the change id to remember", Command::changes_begin));
  begin->add_option("--snapshot", into_.snapshot, "Make this snapshot in the same moment")
      ->type_name("SNAP");
  CLI::App* list =
      of_disk("list", "List what changed since: OFFSET LENGTH, in bytes", Command::changes_list);
  list->add_option("--since", into_.since, "What begin has printed")
      ->required()
      ->type_name("CHANGE-ID");
  list->add_option("--offset", into_.offset, "Begin here")->type_name("BYTES");
  list->add_option("--limit", into_.limit, "At most so many extents (default: all)")
      ->type_name("N");
  of_disk("apps", "List the applications that back the disk up", Command::changes_apps);
  with_app(of_disk("end", "Forget an application", Command::changes_end));
  of_disk("off", "Track no changes any more, and forget all", Command::changes_off);
  CLI::App* diff =
      verb(changes, "diff", "List the extents in which the second differs from the first",
           Command::changes_diff);
  diff->add_option("DISK@A", into_.base, "A snapshot, or a disk as it is now")->required();
  diff->add_option("DISK@B", into_.name, "Another")->required();
  add_page(diff);
  CLI::App* allocated =
      verb(changes, "allocated", "List the extents that hold data", Command::changes_allocated);
  allocated->add_option("DISK@B", into_.name, "A snapshot, or a disk as it is now")->required();
  add_page(allocated);
  for (CLI::App* app : {diff, allocated}) {
    app->footer("To go on after an interruption, give the end of the last extent as --offset.");
  }
}

void Parser::build_jobs() {
  verb(&app_, "jobs", "List the layers that are being taken out, or wait to be", Command::jobs);
}

void Parser::build_archive_doctor(CLI::App* archive) {
  CLI::App* app =
      verb(archive, "doctor",
           "Try what an object store really does. Exit status 1: not fit for an archive",
           Command::archive_doctor);
  app->add_option("URL", into_.store_url, "Where it is")
      ->required()
      ->type_name("s3://BUCKET/PREFIX|DIR");
  app->footer("Makes some objects under firn-doctor/ there, and removes them again.");
}

void Parser::build_bench() {
  BenchSettings& bench = into_.bench;
  CLI::App* app = verb(&app_, "bench", "Load a disk through its vhost-user socket, and measure",
                       Command::bench);
  app->add_option("SOCKET", bench.socket, "The disk's socket")->required();
  app->add_option("--rw", bench.rw, "What is asked (default randread); writes destroy data")
      ->check(CLI::IsMember({"randread", "randwrite", "randrw", "read", "write"}));
  app->add_option("--block", bench.block, "Bytes of a request (default 4K)")
      ->transform(size_validator())
      ->type_name("SIZE");
  app->add_option("--depth", bench.depth, "Requests in flight, a queue (default 32)")
      ->check(CLI::Range(1, 1024));
  app->add_option("--queues", bench.queues, "Queues (default 1)")->check(CLI::Range(1, 64));
  app->add_option("--seconds", bench.seconds, "How long (default 5)")->check(CLI::Range(0.01, 1e6));
  app->add_option("--bytes", bench.bytes, "How much of the disk (default all; verified: 1G)")
      ->transform(size_validator())
      ->type_name("SIZE");
  app->add_option("--flush-every", bench.flush_every, "A flush after so many writes");
  app->add_option("--seed", bench.seed, "Which random load (default 1)");
  app->add_flag("--verify", bench.verify, "Check that reads find what was written");
}

void Parser::add_key(CLI::App* app) {
  ArchiveArguments& archive = into_.archive;
  CLI::Option* file =
      app->add_option("--key-file", archive.key_file, "The key file of an encrypted archive")
          ->type_name("FILE");
  app->add_option("--passphrase-file", archive.passphrase_file,
                  "A file whose first line is the passphrase of an encrypted archive")
      ->type_name("FILE")
      ->excludes(file);
}

void Parser::build_archive(CLI::App* noun) {
  ArchiveArguments& archive = into_.archive;
  const auto of_url = [&](const char* name, const char* about, Command command) {
    CLI::App* app = verb(noun, name, about, command);
    app->add_option("URL", archive.url, "file:///DIRECTORY or s3://BUCKET/PREFIX")->required();
    add_key(app);
    return app;
  };
  CLI::App* create = of_url("create", "Make an archive in an empty place", Command::archive_create);
  create
      ->add_option("--segment", archive.segment_bytes,
                   "What a segment aims at, 4M to 64M (default 16M)")
      ->transform(size_validator())
      ->type_name("SIZE");
  create->add_option("--level", archive.level, "zstd's, 1 to 19 (default 3)")
      ->check(CLI::Range(1, 19));
  create->footer(
      "With --key-file or --passphrase-file the archive is encrypted. Without that file "
      "nobody ever reads it again: keep a copy of it elsewhere.");
  CLI::App* push =
      verb(noun, "push", "Send a snapshot: what changed since the last one", Command::archive_push);
  push->add_option("DISK@SNAPSHOT", into_.name, "The snapshot")->required();
  push->add_option("URL", archive.url, "The archive")->required();
  push->add_flag("--take-over", archive.take_over,
                 "End another host's push of this disk that has not ended");
  add_key(push);
  of_url("list", "List the snapshots that are there", Command::archive_list)
      ->add_option("DISK", into_.name, "Only of this disk");
  CLI::App* remove = of_url("delete", "Delete a snapshot, in any order", Command::archive_delete);
  remove->add_option("DISK@SNAPSHOT", into_.name, "The snapshot")->required();
  CLI::App* clean = of_url("clean", "Give space back: empty, sparse and orphaned segments",
                           Command::archive_clean);
  clean->add_flag("--garbage", archive.garbage,
                  "Also list the bucket for objects that nobody knows");
  for (CLI::App* app : {remove, clean}) {
    app->add_option("--grace", archive.grace_seconds,
                    "Seconds before an object that lost its last block goes (default 3600)")
        ->type_name("SECONDS");
  }
  clean
      ->add_option("--min-age", archive.min_age_seconds,
                   "Segments younger than so many seconds stay as they are (default 3600)")
      ->type_name("SECONDS");
  of_url("scrub", "Read everything, and name what is damaged; needs no key",
         Command::archive_scrub);
  of_url("rebuild", "Make the metadata again from the segments alone", Command::archive_rebuild);
  of_url("check", "Recount every reference against the snapshots", Command::archive_check);
  of_url("stats", "Show what is stored, and what it holds", Command::archive_stats);
  CLI::App* keep =
      of_url("keep", "Delete snapshots that a schedule does not keep", Command::archive_keep);
  keep->add_option("DISK", into_.name, "The disk")->required();
  keep->add_option("--last", archive.last, "The newest so many")->type_name("N");
  keep->add_option("--hourly", archive.hourly, "One of each of so many hours")->type_name("N");
  keep->add_option("--daily", archive.daily, "One of each of so many days")->type_name("N");
  keep->add_option("--weekly", archive.weekly, "One of each of so many weeks")->type_name("N");
  keep->add_option("--monthly", archive.monthly, "One of each of so many months")->type_name("N");
  keep->add_option("--yearly", archive.yearly, "One of each of so many years")->type_name("N");
  keep->add_flag("--dry-run", archive.dry_run, "Say what would go, and delete nothing");
  CLI::App* restore =
      verb(&app_, "restore", "Make a disk from a snapshot in an archive", Command::restore);
  restore->add_option("URL", archive.url, "The archive")->required();
  restore->add_option("DISK@SNAPSHOT", into_.name, "The snapshot")->required();
  restore->add_option("NEW", into_.to, "The new disk")->required();
  restore->add_flag("--salvage", archive.salvage,
                    "Make the disk even when parts are damaged; they read as zeroes");
  restore->add_flag("--instant", archive.instant,
                    "Serve the disk at once and fetch it meanwhile; needs firn serve");
  add_key(restore);
}

int Parser::complain(const std::string& text) {
  fmt::print(stderr, "firn {}: {}; see firn {} --help\n", verb_, text, verb_);
  return kUsage;
}

bool Parser::take_settings() {
  for (const std::string& pair : pairs_) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) return false;
    into_.settings.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return true;
}

bool Parser::need_pool() {
  if (!pool_operand_.empty()) into_.pool = pool_operand_;
  const bool alone =
      into_.command == Command::archive_doctor ||
      (into_.command >= Command::archive_create && into_.command <= Command::archive_keep &&
       into_.command != Command::archive_push);
  return alone || !into_.pool.empty();
}

int Parser::parse(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app_.exit(error) == 0 ? 0 : kUsage;
  }
  if (!take_settings()) return complain("settings are given as key=value");
  if (!tier_.empty()) return complain("--tier is not in this version; leave it out");
  if (into_.command != Command::bench && !need_pool())
    return complain("which pool? Give --pool DIR, or set FIRN_POOL");
  into_.daemon.directory = into_.pool;
  into_.daemon.nbd_mode = static_cast<uint32_t>(std::stoul(mode_, nullptr, 8));
  into_.daemon.vhost.mode = static_cast<uint32_t>(std::stoul(vhost_mode_, nullptr, 8));
  into_.daemon.tls_required = tls_ == "required";
  const bool has_tls = !into_.daemon.tls_certificates.empty() || !into_.daemon.tls_psk.empty();
  if (into_.daemon.tls_required && !has_tls) {
    return complain("--tls required needs --tls-certificates DIR or --tls-psk FILE");
  }
  for (const LogLevel level :
       {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error}) {
    if (engine::name_of(level) == level_) into_.daemon.log.level = level;
  }
  if (log_format_ == "json") into_.daemon.log.format = engine::LogFormat::json;
  return -1;
}

}  // namespace

std::optional<Arguments> parse_arguments(int argc, char** argv, int& exit_status) {
  Arguments arguments;
  Parser parser(arguments);
  exit_status = parser.parse(argc, argv);
  if (exit_status >= 0) return std::nullopt;
  return arguments;
}

}  // namespace firn::cmd
