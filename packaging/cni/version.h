/* The version to answer in, from a configuration that nobody has judged yet. */
#include <string.h>

static char version[16] = "1.1.0";

static void learn_version(const char *input) {
  static const char key[] = "\"cniVersion\"";
  const char *found = strstr(input, key);
  if (found == NULL) return;
  found += sizeof key - 1;
  found += strspn(found, " \t\r\n:");
  size_t length = *found == '"' ? strspn(found + 1, "0123456789.") : 0;
  if (length == 0 || length >= sizeof version || found[1 + length] != '"') return;
  memcpy(version, found + 1, length);
  version[length] = 0;
}
