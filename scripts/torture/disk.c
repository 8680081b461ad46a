/* What a program does to the files below one folder, as a disk sees it: written down, or refused.
 *
 * Preloaded (LD_PRELOAD) into a server by scripts/torture/disk.py, which compiles it. In the environment:
 *
 *   TORTURE_ROOT    the folder, absolute and resolved; everything else is left alone
 *   TORTURE_LOG     a file to which every change is appended; scripts/torture/disk.py reads it. Nothing is
 *                   really brought to the disk then: what a power cut leaves is reckoned from the log
 *   TORTURE_FAULTS  a file of six 32-bit numbers that is mapped: which changes fail, how often they did
 *
 * A record of the log: kind (1 byte), inode (8), offset or size (8), length (4), all little-endian, then bytes.
 * Kinds: C create, M make a folder, W write, T set the size, S sync, R rename, L link, U unlink, D remove a
 * folder, X something that is not followed here. Names are absolute; two names have a zero byte between them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FILES 65536
enum { WRITE = 1, CREATE = 2, SYNC = 4, SIZE = 8, NAME = 16 };
enum { OFF = 0, ONCE = 1, FROM_THEN_ON = 2 };

struct faults {
    int32_t mode, error, at, seen, hits, kinds;
};

static struct { uint64_t inode; int kind; } open_files[MOST_FILES]; /* kind: 0 not ours, 1 file, 2 folder */
static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static struct faults *faults;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real_##name)
#define FIND(name) real_##name = dlsym(RTLD_NEXT, #name)
static void *real_open64, *real_close, *real_write, *real_pwrite64, *real_writev, *real_ftruncate64, *real_fsync,
    *real_rename, *real_unlink, *real_unlinkat, *real_mkdir, *real_rmdir, *real_link, *real_posix_fallocate64;

__attribute__((constructor)) static void begin(void)
{
    if (real_open64)
        return;
    FIND(close); FIND(write); FIND(pwrite64); FIND(writev); FIND(ftruncate64); FIND(fsync);
    FIND(rename); FIND(unlink); FIND(unlinkat); FIND(mkdir); FIND(rmdir); FIND(link); FIND(posix_fallocate64);
    FIND(open64);
    const char *given = getenv("TORTURE_ROOT"), *log = getenv("TORTURE_LOG"), *fault = getenv("TORTURE_FAULTS");
    if (!given)
        return;
    snprintf(root, sizeof root, "%s", given);
    root_length = strlen(root);
    if (log)
        log_file = REAL(open64)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fault) {
        int file = REAL(open64)(fault, O_RDWR | O_CLOEXEC);
        void *place = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        faults = place == MAP_FAILED ? NULL : place;
        if (file >= 0)
            REAL(close)(file);
    }
}

/* Whether a name is below the root; `full` becomes the absolute name. */
static int ours(int folder, const char *name, char *full)
{
    begin();
    if (!root_length || !name)
        return 0;
    if (name[0] == '/')
        snprintf(full, PATH_MAX, "%s", name);
    else {
        char base[PATH_MAX], link[64];
        ssize_t length = -1;
        if (folder == AT_FDCWD)
            length = getcwd(base, sizeof base) ? (ssize_t)strlen(base) : -1;
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            length = readlink(link, base, sizeof base - 1);
        }
        if (length < 0)
            return 0;
        base[length] = 0;
        if ((size_t)snprintf(full, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
            return 0;
    }
    return !strncmp(full, root, root_length) && (full[root_length] == '/' || !full[root_length]);
}

static int kind_of(int file) { return file >= 0 && file < MOST_FILES ? open_files[file].kind : 0; }

static void note(char kind, uint64_t inode, uint64_t offset, const void *bytes, uint32_t length)
{
    unsigned char head[21];
    if (log_file < 0)
        return;
    head[0] = (unsigned char)kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &length, 4);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    if (REAL(writev)(log_file, parts, length ? 2 : 1) != (ssize_t)(sizeof head + length))
        abort(); /* a log with a hole would prove nothing */
}

static void note_names(char kind, const char *one, const char *other)
{
    char both[2 * PATH_MAX];
    size_t first = strlen(one), second = other ? strlen(other) : 0;
    memcpy(both, one, first);
    both[first] = 0;
    if (other)
        memcpy(both + first + 1, other, second);
    note(kind, 0, 0, both, (uint32_t)(other ? first + 1 + second : first));
}

/* The error with which a change of this kind fails now; 0 when it does not. */
static int fault(int kind)
{
    if (!faults || faults->mode == OFF || !(faults->kinds & kind))
        return 0;
    int32_t number = ++faults->seen;
    if (number < faults->at || (faults->mode == ONCE && number > faults->at))
        return 0;
    faults->hits++;
    return faults->error;
}

#define REFUSE_IF_FAULT(kind, value)            \
    do {                                        \
        int refused = fault(kind);              \
        if (refused) {                          \
            pthread_mutex_unlock(&turn);        \
            errno = refused;                    \
            return value;                       \
        }                                       \
    } while (0)

/* -- opening and closing --------------------------------------------------------------------------- */

static int opened(int folder, const char *name, int flags, mode_t mode)
{
    char full[PATH_MAX];
    struct stat about;
    if (!ours(folder, name, full))
        return -2;
    pthread_mutex_lock(&turn);
    int fresh = (flags & O_CREAT) && lstat(full, &about) && errno == ENOENT;
    if (fresh)
        REFUSE_IF_FAULT(CREATE, -1);
    int file = REAL(open64)(full, flags, mode), error = errno;
    if (file >= 0 && file < MOST_FILES && !fstat(file, &about)) {
        open_files[file].inode = about.st_ino;
        open_files[file].kind = S_ISDIR(about.st_mode) ? 2 : S_ISREG(about.st_mode) ? 1 : 0;
        if (fresh)
            note('C', about.st_ino, 0, full, (uint32_t)strlen(full));
        else if (flags & O_TRUNC)
            note('T', about.st_ino, 0, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return file;
}

static mode_t mode_in(int flags, va_list rest)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...)                  \
    {                                                           \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = mode_in(flags, rest);                     \
        va_end(rest);                                           \
        int file = opened(AT_FDCWD, path, flags, mode);         \
        return file != -2 ? file : REAL(open64)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                            \
    int name(int folder, const char *path, int flags, ...)      \
    {                                                           \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = mode_in(flags, rest);                     \
        va_end(rest);                                           \
        int file = opened(folder, path, flags, mode);           \
        if (file != -2)                                         \
            return file;                                        \
        int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        return real(folder, path, flags, mode);                 \
    }
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char *path, int flags) { return open64(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }

int creat(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int file)
{
    begin();
    if (kind_of(file)) {
        pthread_mutex_lock(&turn);
        open_files[file].kind = 0;
        pthread_mutex_unlock(&turn);
    }
    return REAL(close)(file);
}

/* -- writing ------------------------------------------------------------------------------------------ */

/* A disk that fills up takes a part of what is written, and then nothing more. */
static size_t taken(size_t count, int *refused)
{
    *refused = fault(WRITE);
    if (*refused == ENOSPC && faults->hits == 1 && faults->mode == FROM_THEN_ON && count > 1) {
        *refused = 0;
        return count / 2;
    }
    return count;
}

#define WRITE_AT(name, signature, place, call)                      \
    ssize_t name signature                                          \
    {                                                               \
        begin();                                                    \
        if (kind_of(file) != 1)                                     \
            return call(count);                                     \
        pthread_mutex_lock(&turn);                                  \
        int refused;                                                \
        size_t part = taken(count, &refused);                       \
        ssize_t done = -1;                                          \
        int error = refused;                                        \
        if (!refused) {                                             \
            done = call(part);                                      \
            error = errno;                                          \
            if (done > 0)                                           \
                note('W', open_files[file].inode, (uint64_t)(place), bytes, (uint32_t)done); \
        }                                                           \
        pthread_mutex_unlock(&turn);                                \
        errno = error;                                              \
        return done;                                                \
    }
#define JUST_WRITE(n) REAL(write)(file, bytes, n)
#define WRITE_THERE(n) REAL(pwrite64)(file, bytes, n, offset)
WRITE_AT(write, (int file, const void *bytes, size_t count), lseek(file, 0, SEEK_CUR) - done, JUST_WRITE)
WRITE_AT(pwrite, (int file, const void *bytes, size_t count, off_t offset), offset, WRITE_THERE)
WRITE_AT(pwrite64, (int file, const void *bytes, size_t count, off64_t offset), offset, WRITE_THERE)

ssize_t writev(int file, const struct iovec *parts, int count)
{
    begin();
    if (kind_of(file) != 1)
        return REAL(writev)(file, parts, count);
    ssize_t total = 0;
    for (int part = 0; part < count; part++) {
        ssize_t done = write(file, parts[part].iov_base, parts[part].iov_len);
        if (done < 0)
            return total ? total : -1;
        total += done;
        if ((size_t)done < parts[part].iov_len)
            break;
    }
    return total;
}

static int sized(int file, off64_t size)
{
    begin();
    if (kind_of(file) != 1)
        return REAL(ftruncate64)(file, size);
    pthread_mutex_lock(&turn);
    REFUSE_IF_FAULT(SIZE, -1);
    int done = REAL(ftruncate64)(file, size), error = errno;
    if (!done)
        note('T', open_files[file].inode, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}
int ftruncate(int file, off_t size) { return sized(file, size); }
int ftruncate64(int file, off64_t size) { return sized(file, size); }

static int reserved(int file, off64_t offset, off64_t length)
{
    begin();
    if (kind_of(file) != 1)
        return REAL(posix_fallocate64)(file, offset, length);
    struct stat about;
    pthread_mutex_lock(&turn);
    int refused = fault(WRITE);
    int done = refused ? refused : REAL(posix_fallocate64)(file, offset, length);
    if (!done && !fstat(file, &about))
        note('T', open_files[file].inode, (uint64_t)about.st_size, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
int posix_fallocate(int file, off_t offset, off_t length) { return reserved(file, offset, length); }
int posix_fallocate64(int file, off64_t offset, off64_t length) { return reserved(file, offset, length); }

static int synced(int file)
{
    begin();
    if (!kind_of(file))
        return REAL(fsync)(file);
    pthread_mutex_lock(&turn);
    REFUSE_IF_FAULT(SYNC, -1);
    note('S', open_files[file].inode, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    return log_file < 0 ? REAL(fsync)(file) : 0;
}
int fsync(int file) { return synced(file); }
int fdatasync(int file) { return synced(file); }

/* -- names ---------------------------------------------------------------------------------------------- */

#define ONE_NAME(kind, fault_kind, call)                            \
    char full[PATH_MAX];                                            \
    if (!ours(AT_FDCWD, path, full))                                \
        return call;                                                \
    pthread_mutex_lock(&turn);                                      \
    REFUSE_IF_FAULT(fault_kind, -1);                                \
    int done = call, error = errno;                                 \
    if (!done)                                                      \
        note_names(kind, full, NULL);                               \
    pthread_mutex_unlock(&turn);                                    \
    errno = error;                                                  \
    return done;

int unlink(const char *path) { ONE_NAME('U', NAME, REAL(unlink)(path)) }
int rmdir(const char *path) { ONE_NAME('D', NAME, REAL(rmdir)(path)) }

int mkdir(const char *path, mode_t mode)
{
    char full[PATH_MAX];
    struct stat about;
    if (!ours(AT_FDCWD, path, full))
        return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&turn);
    REFUSE_IF_FAULT(CREATE, -1);
    int done = REAL(mkdir)(path, mode), error = errno;
    if (!done && !stat(full, &about))
        note('M', about.st_ino, 0, full, (uint32_t)strlen(full));
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

int unlinkat(int folder, const char *path, int flags)
{
    char full[PATH_MAX];
    if (!ours(folder, path, full))
        return REAL(unlinkat)(folder, path, flags);
    return flags & AT_REMOVEDIR ? rmdir(full) : unlink(full);
}

#define TWO_NAMES(kind, fault_kind, call)                           \
    char one[PATH_MAX], other[PATH_MAX];                            \
    int here = ours(AT_FDCWD, from, one), there = ours(AT_FDCWD, to, other); \
    if (!here && !there)                                            \
        return call;                                                \
    pthread_mutex_lock(&turn);                                      \
    REFUSE_IF_FAULT(fault_kind, -1);                                \
    int done = call, error = errno;                                 \
    if (!done)                                                      \
        note_names(here && there ? kind : 'X', one, other);         \
    pthread_mutex_unlock(&turn);                                    \
    errno = error;                                                  \
    return done;

int rename(const char *from, const char *to) { TWO_NAMES('R', NAME, REAL(rename)(from, to)) }
int link(const char *from, const char *to) { TWO_NAMES('L', CREATE, REAL(link)(from, to)) }

/* Ways to change a file that nothing here uses: one that begins to is told by an X in the log. */
#define NOT_FOLLOWED(result, name, signature, given, file)          \
    result name signature                                           \
    {                                                               \
        begin();                                                    \
        result(*real) signature = dlsym(RTLD_NEXT, #name);          \
        if (kind_of(file) == 1)                                     \
            note_names('X', #name, NULL);                           \
        return real given;                                          \
    }
NOT_FOLLOWED(ssize_t, sendfile, (int out, int in, off_t *at, size_t n), (out, in, at, n), out)
NOT_FOLLOWED(ssize_t, sendfile64, (int out, int in, off64_t *at, size_t n), (out, in, at, n), out)
NOT_FOLLOWED(ssize_t, copy_file_range, (int in, off64_t *a, int out, off64_t *b, size_t n, unsigned f),
             (in, a, out, b, n, f), out)
NOT_FOLLOWED(ssize_t, pwritev, (int out, const struct iovec *v, int n, off_t at), (out, v, n, at), out)
NOT_FOLLOWED(ssize_t, pwritev64, (int out, const struct iovec *v, int n, off64_t at), (out, v, n, at), out)
NOT_FOLLOWED(int, fallocate, (int file, int mode, off_t at, off_t n), (file, mode, at, n), file)
