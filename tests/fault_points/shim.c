// Counts the calls by which a process changes files below some folders, fails or kills at one of
// them, and logs them all with their data, for tests. Loaded by LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, FSYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE, MAP };
enum { COUNT = 0, FAIL, KILL_BEFORE, KILL_AFTER };
#define FILES 4096
#define LARGE (1 << 20)  // of an anonymous mapping that counts

static char root[PATH_MAX];
static size_t root_length;
static int is_armed, mode, error_number, log_descriptor = -1;
static long count, target;
static char *names[FILES];  // of open files below the root

void fault_arm(const char *folder, int how, long at, int error, int descriptor) {
  snprintf(root, sizeof root, "%s/", folder);
  root_length = strlen(root);
  mode = how, target = at, error_number = error, log_descriptor = descriptor;
  count = 0, is_armed = 1;
}

long fault_disarm(void) {
  is_armed = 0;
  return count;
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

// The absolute path of a name; whether it lies below the root.
static int resolve(int folder, const char *name, char *out) {
  if (!is_armed || !name) return 0;
  if (name[0] == '/') {
    snprintf(out, PATH_MAX, "%s", name);
  } else {
    char base[PATH_MAX], link[64];
    ssize_t n;
    if (folder == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return 0;
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      if ((n = readlink(link, base, sizeof base - 1)) < 0) return 0;
      base[n] = 0;
    }
    if (snprintf(out, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
  }
  return strncmp(out, root, root_length) == 0;
}

static void put(const void *data, size_t size) {
  syscall(SYS_write, log_descriptor, data, size);
}

static void record(int kind, const char *a, const char *b, int64_t offset, const void *data,
                   int64_t size) {
  if (log_descriptor < 0) return;
  int64_t head[5] = {kind, a ? strlen(a) : 0, b ? strlen(b) : 0, offset, data ? size : 0};
  size_t whole = sizeof head + head[1] + head[2] + head[4];
  char *buffer = malloc(whole), *at = buffer;  // one call, as threads write at once
  memcpy(at, head, sizeof head), at += sizeof head;
  if (a) memcpy(at, a, head[1]), at += head[1];
  if (b) memcpy(at, b, head[2]), at += head[2];
  if (data) memcpy(at, data, head[4]);
  put(buffer, whole);
  free(buffer);
}

static int begins(void) {  // a call that counts; whether it fails
  if (__sync_add_and_fetch(&count, 1) != target) return 0;
  if (mode == KILL_BEFORE) kill(getpid(), SIGKILL);
  if (mode != FAIL) return 0;
  errno = error_number;
  return 1;
}

static void ends(long number) {  // after the call
  if (mode == KILL_AFTER && number == target) kill(getpid(), SIGKILL);
}

static int opened(int descriptor, const char *path) {
  if (descriptor >= 0 && descriptor < FILES) {
    free(names[descriptor]);
    names[descriptor] = path ? strdup(path) : NULL;
  }
  return descriptor;
}

static const char *name_of(int descriptor) {
  if (!is_armed || descriptor < 0 || descriptor >= FILES) return NULL;
  return names[descriptor];
}

static int open_below(int folder, const char *name, int flags, mode_t permissions) {
  char path[PATH_MAX];
  int below = resolve(folder, name, path), writes = flags & (O_CREAT | O_TRUNC);
  if (below && writes && begins()) return -1;
  long number = count;
  int descriptor = syscall(SYS_openat, folder, name, flags, permissions);
  if (below && descriptor >= 0) {
    if (writes) record(CREATE, path, NULL, !!(flags & O_TRUNC), NULL, 0);
    if (writes) ends(number);
    return opened(descriptor, path);
  }
  return opened(descriptor, NULL);
}

#define PERMISSIONS \
  mode_t permissions = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list list; \
    va_start(list, flags); \
    permissions = va_arg(list, mode_t); \
    va_end(list); \
  }

int open(const char *name, int flags, ...) {
  PERMISSIONS return open_below(AT_FDCWD, name, flags, permissions);
}
int open64(const char *name, int flags, ...) {
  PERMISSIONS return open_below(AT_FDCWD, name, flags | O_LARGEFILE, permissions);
}
int openat(int folder, const char *name, int flags, ...) {
  PERMISSIONS return open_below(folder, name, flags, permissions);
}
int openat64(int folder, const char *name, int flags, ...) {
  PERMISSIONS return open_below(folder, name, flags | O_LARGEFILE, permissions);
}

int close(int descriptor) {
  opened(descriptor, NULL);
  return syscall(SYS_close, descriptor);
}

static int64_t position(int descriptor) {
  struct stat about;
  if (fcntl(descriptor, F_GETFL) & O_APPEND)
    return syscall(SYS_fstat, descriptor, &about) ? 0 : about.st_size;
  return lseek(descriptor, 0, SEEK_CUR);
}

static ssize_t write_to(int descriptor, const void *data, size_t size, int64_t offset) {
  const char *path = name_of(descriptor);
  int64_t at = offset;
  if (path) {
    if (begins()) return -1;
    if (offset < 0) at = position(descriptor);
  }
  long number = count;
  ssize_t done = offset < 0 ? syscall(SYS_write, descriptor, data, size)
                            : syscall(SYS_pwrite64, descriptor, data, size, offset);
  if (path && done > 0) record(WRITE, path, NULL, at, data, done);
  if (path) ends(number);
  return done;
}

ssize_t write(int descriptor, const void *data, size_t size) {
  return write_to(descriptor, data, size, -1);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
  return write_to(descriptor, data, size, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
  return write_to(descriptor, data, size, offset);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
  if (!name_of(descriptor)) return syscall(SYS_writev, descriptor, parts, number);
  ssize_t all = 0;
  for (int i = 0; i < number; i++) {
    ssize_t done = write_to(descriptor, parts[i].iov_base, parts[i].iov_len, -1);
    if (done < 0) return all ? all : done;
    all += done;
    if ((size_t)done < parts[i].iov_len) break;
  }
  return all;
}

#define WITH_DESCRIPTOR(kind, call, offset) \
  const char *path = name_of(descriptor); \
  if (path && begins()) return -1; \
  long number = count; \
  int done = call; \
  if (path && !done) record(kind, path, NULL, offset, NULL, 0); \
  if (path) ends(number); \
  return done;

int fsync(int descriptor) { WITH_DESCRIPTOR(FSYNC, syscall(SYS_fsync, descriptor), 0) }
int fdatasync(int descriptor) { WITH_DESCRIPTOR(FSYNC, syscall(SYS_fdatasync, descriptor), 0) }
int ftruncate(int descriptor, off_t size) {
  WITH_DESCRIPTOR(TRUNCATE, syscall(SYS_ftruncate, descriptor, size), size)
}
int ftruncate64(int descriptor, off64_t size) {
  WITH_DESCRIPTOR(TRUNCATE, syscall(SYS_ftruncate, descriptor, size), size)
}

#define WITH_PATH(kind, folder, name, call, offset) \
  char path[PATH_MAX]; \
  int below = resolve(folder, name, path); \
  if (below && begins()) return -1; \
  long number = count; \
  int done = call; \
  if (below && !done) record(kind, path, NULL, offset, NULL, 0); \
  if (below) ends(number); \
  return done;

int truncate(const char *name, off_t size) {
  WITH_PATH(TRUNCATE, AT_FDCWD, name, syscall(SYS_truncate, name, size), size)
}
int truncate64(const char *name, off64_t size) {
  WITH_PATH(TRUNCATE, AT_FDCWD, name, syscall(SYS_truncate, name, size), size)
}
int unlink(const char *name) {
  WITH_PATH(UNLINK, AT_FDCWD, name, syscall(SYS_unlinkat, AT_FDCWD, name, 0), 0)
}
int unlinkat(int folder, const char *name, int flags) {
  WITH_PATH(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, name,
            syscall(SYS_unlinkat, folder, name, flags), 0)
}
int rmdir(const char *name) {
  WITH_PATH(RMDIR, AT_FDCWD, name, syscall(SYS_unlinkat, AT_FDCWD, name, AT_REMOVEDIR), 0)
}
int mkdir(const char *name, mode_t permissions) {
  WITH_PATH(MKDIR, AT_FDCWD, name, syscall(SYS_mkdirat, AT_FDCWD, name, permissions), 0)
}
int mkdirat(int folder, const char *name, mode_t permissions) {
  WITH_PATH(MKDIR, folder, name, syscall(SYS_mkdirat, folder, name, permissions), 0)
}

static int two(int kind, int from, const char *a, int to, const char *b, int flags) {
  char path[PATH_MAX], other[PATH_MAX];
  resolve(from, a, path);
  int below = resolve(to, b, other);
  if (below && begins()) return -1;
  long number = count;
  int done = kind == RENAME ? syscall(SYS_renameat2, from, a, to, b, flags)
                            : syscall(SYS_linkat, from, a, to, b, flags);
  if (below && !done) record(kind, path, other, 0, NULL, 0);
  if (below) ends(number);
  return done;
}

int rename(const char *a, const char *b) { return two(RENAME, AT_FDCWD, a, AT_FDCWD, b, 0); }
int renameat(int from, const char *a, int to, const char *b) {
  return two(RENAME, from, a, to, b, 0);
}
int link(const char *a, const char *b) { return two(LINK, AT_FDCWD, a, AT_FDCWD, b, 0); }
int linkat(int from, const char *a, int to, const char *b, int flags) {
  return two(LINK, from, a, to, b, flags);
}

void *mmap(void *address, size_t size, int protection, int flags, int descriptor, off_t offset) {
  int counts = is_armed && (name_of(descriptor) || (descriptor < 0 && size >= LARGE));
  if (counts && begins()) return MAP_FAILED;
  long number = count;
  void *done = (void *)syscall(SYS_mmap, address, size, protection, flags, descriptor, offset);
  if (counts) ends(number);
  return done;
}
void *mmap64(void *address, size_t size, int protection, int flags, int descriptor, off64_t off) {
  return mmap(address, size, protection, flags, descriptor, off);
}
