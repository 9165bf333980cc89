/*
 * causeway-cni: what a container runtime executes. A process start is the whole cost here, so it only hands its environment
 * (CNI_*) and standard input to the agent of this host and prints the answer; src/cni/server.ts says what the request looks
 * like. All commands of CNI may be repeated, so a connection that breaks because the agent restarts is simply tried again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "version.h"

#define SOCKET_PATH "/run/causeway/cni.sock"
/* Written whenever a STATUS went well. */
#define READY_PATH "/run/causeway/cni.ready"

enum {
  MOST_BYTES = 4 << 20,
  /* Runtimes give up after two minutes or more; they shall hear from us first. */
  LIMIT_SECONDS = 100,
  /* The kubelet takes a runtime for dead that is held up by STATUS for half a minute. */
  STATUS_LIMIT_SECONDS = 3,
  /* How long an agent that restarts is waited for. */
  PATIENCE_SECONDS = 10,
  RETRY_MS = 20,
  /* How long a host is ready without its agent: for one to be replaced, its image fetched. */
  GRACE_SECONDS = 120,
};

extern char **environ;

static struct text {
  char *bytes;
  size_t length, room;
} request, answer;

static int is_status;

static void put(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t wrote = write(fd, bytes, length);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    bytes += wrote;
    length -= (size_t)wrote;
  }
}

/* 11: try again later; 50: not available (CNI 1.1.0, "Error"). Also called by the alarm: nothing but write(2) here. */
static void fail(const char *message, const char *details) {
  const char *parts[] = {"{\"cniVersion\":\"", version, "\",\"code\":", is_status ? "50" : "11", ",\"msg\":\"", message,
                         "\",\"details\":\"", details, "\"}\n"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) put(STDOUT_FILENO, parts[i], strlen(parts[i]));
  _exit(1);
}

/*
 * Runtimes of Kubernetes (containerd since 2.0, CRI-O) ask for STATUS every few seconds, and while it fails the node is not ready:
 * all of its pods count as not ready, too, and services lose them. An agent that is replaced cuts nobody off, so it is no reason.
 */
static void note_ready(void) {
  int fd = open(READY_PATH, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  futimens(fd, NULL);
  close(fd);
}

static int was_ready(void) {
  struct stat found;
  if (stat(READY_PATH, &found) != 0) return 0;
  time_t age = time(NULL) - found.st_mtime;
  return age >= 0 && age < GRACE_SECONDS;
}

static void out_of_time(int signal) {
  (void)signal;
  if (is_status && was_ready()) _exit(0);
  fail("The Causeway agent has not answered in time", "See the log of causeway agent");
}

static void append(struct text *text, const char *bytes, size_t length) {
  if (length > MOST_BYTES || text->length + length > MOST_BYTES) fail("More than 4 MiB", "");
  if (text->length + length + 1 > text->room) {
    text->room = 2 * (text->length + length) + 4096;
    text->bytes = realloc(text->bytes, text->room);
    if (text->bytes == NULL) fail("Out of memory", "");
  }
  memcpy(text->bytes + text->length, bytes, length);
  text->length += length;
  text->bytes[text->length] = 0;
}

/* Appends what comes next. 0: there is no more; below: it broke off. */
static ssize_t append_next(struct text *text, int fd) {
  char buffer[65536];
  ssize_t got;
  do got = read(fd, buffer, sizeof buffer);
  while (got < 0 && errno == EINTR);
  if (got > 0) append(text, buffer, (size_t)got);
  return got;
}

static void write_request(void) {
  struct text body = {0}, input = {0};
  append(&input, "", 0);
  ssize_t got;
  while ((got = append_next(&input, STDIN_FILENO)) > 0) continue;
  if (got < 0) fail("Cannot read standard input", "");
  learn_version(input.bytes);
  for (char **variable = environ; *variable != NULL; variable++)
    if (strncmp(*variable, "CNI_", 4) == 0) append(&body, *variable, strlen(*variable) + 1);
  append(&body, "", 1);
  append(&body, input.bytes, input.length);
  char head[128];
  int length = snprintf(head, sizeof head, "POST /cni HTTP/1.0\r\nHost: causeway\r\nContent-Length: %zu\r\n\r\n", body.length);
  append(&request, head, (size_t)length);
  append(&request, body.bytes, body.length);
}

/* Where the answer's body begins; NULL unless all of it is there. */
static const char *body_of(const struct text *text) {
  static const char key[] = "\r\ncontent-length:";
  const char *end = text->length == 0 ? NULL : strstr(text->bytes, "\r\n\r\n");
  if (end == NULL) return NULL;
  for (const char *line = text->bytes; line < end; line++) {
    if (strncasecmp(line, key, sizeof key - 1) != 0) continue;
    size_t wanted = strtoul(line + sizeof key - 1, NULL, 10);
    return text->length - (size_t)(end + 4 - text->bytes) == wanted ? end + 4 : NULL;
  }
  return NULL;
}

/* One attempt. True: the answer is whole; the agent, which may have more to do before it hangs up, is not waited for then. */
static int ask(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};
  int is_whole = 0;
  answer.length = 0;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return 0;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    put(fd, request.bytes, request.length);
    while (!is_whole && append_next(&answer, fd) > 0) is_whole = body_of(&answer) != NULL;
  }
  close(fd);
  return is_whole;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(void) {
  const char *command = getenv("CNI_COMMAND");
  is_status = command != NULL && strcmp(command, "STATUS") == 0;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, out_of_time);
  alarm(is_status ? STATUS_LIMIT_SECONDS : LIMIT_SECONDS);
  write_request();
  for (double end = now() + (is_status ? 0 : PATIENCE_SECONDS); !ask();) {
    if (is_status && was_ready()) return 0;
    if (now() >= end) fail("The Causeway agent of this host does not answer on " SOCKET_PATH, "Start it: systemctl start causeway-agent");
    nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
  }
  const char *body = body_of(&answer);
  put(STDOUT_FILENO, body, answer.length - (size_t)(body - answer.bytes));
  int is_fine = strncmp(answer.bytes, "HTTP/1.1 200 ", 13) == 0;
  if (is_status && is_fine) note_ready();
  return is_fine ? 0 : 1;
}
