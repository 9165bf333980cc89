/*
 * loopback: containerd before 2.1 executes a plugin of this name for every pod, to set the loopback link up. It needs no
 * agent, so that pods of the host's own network start without one.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "version.h"

/* By which packaging/image tells it, of whatever version, from others' of that name. */
static const char mark[] __attribute__((used)) = "loopback of Causeway";

static int fail(const char *what) {
  printf("{\"cniVersion\":\"%s\",\"code\":5,\"msg\":\"Cannot %s\",\"details\":\"%m\"}\n", version, what);
  return 1;
}

/* 0.3 and 0.4 say each address's family. */
static int answer(void) {
  int is_old = version[0] == '0';
  printf("{\"cniVersion\":\"%s\",\"ips\":[{%s\"address\":\"127.0.0.1/8\"},{%s\"address\":\"::1/128\"}]}\n", version,
         is_old ? "\"version\":\"4\"," : "", is_old ? "\"version\":\"6\"," : "");
  return 0;
}

int main(void) {
  static char input[1 << 16];
  size_t length = fread(input, 1, sizeof input - 1, stdin);
  input[length] = 0;
  learn_version(input);
  const char *command = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS");
  if (command != NULL && strcmp(command, "VERSION") == 0) {
    printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
    return 0;
  }
  if (command == NULL || strcmp(command, "ADD") != 0) return 0;
  int fd = netns == NULL ? -1 : open(netns, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) return fail("enter the network namespace");
  int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq link = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING};
  if (control < 0 || ioctl(control, SIOCSIFFLAGS, &link) != 0) return fail("set the loopback link up");
  return answer();
}
