// Names as a test has them: preloaded into a process, it finds the addresses of names below ".test" in the file that
// STREAMHAND_TEST_NAMES names: one IPv4 address a line, in this order, whatever the name. All else is looked up as ever.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    lookup real = (lookup)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("STREAMHAND_TEST_NAMES"), *end = name ? strstr(name, ".test") : NULL;
    FILE *file = path && end && end[5] == 0 ? fopen(path, "r") : NULL;
    if (!file) return real(name, service, hints, found);
    struct addrinfo *first = NULL, **last = &first;
    char line[64];
    int failed = EAI_NONAME;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        // Of each address one, which the real one takes apart, and frees when it is asked to.
        failed = real(line, service, hints, last);
        while (!failed && *last) last = &(*last)->ai_next;
    }
    fclose(file);
    *found = first;
    return first ? 0 : failed;
}
