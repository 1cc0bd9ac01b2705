/* What an unwinder that was built for glibc asks of it, for programs on musl: where the unwind tables of an address are.
   Compiled into an archive with that unwinder (libgcc_eh.a), which also looks whether threads are there by whether their
   functions are. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stddef.h>

/* glibc's `struct dl_find_object` on x86-64. */
struct found {
    unsigned long long flags;
    void *start, *end;
    struct link_map *module;
    void *tables;
    unsigned long long reserved[7];
};

struct search {
    char *address;
    struct found *found;
};

static int look(struct dl_phdr_info *module, size_t size, void *given) {
    struct search *search = given;
    char *base = (char *)module->dlpi_addr, *start = NULL, *end = NULL, *tables = NULL;
    (void)size;
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        char *from = base + part->p_vaddr, *to = from + part->p_memsz;
        if (part->p_type == PT_LOAD && search->address >= from && search->address < to) start = from, end = to;
        if (part->p_type == PT_GNU_EH_FRAME) tables = from;
    }
    if (!start || !tables) return 0;
    *search->found = (struct found){.start = start, .end = end, .tables = tables};
    return 1;
}

int _dl_find_object(void *address, struct found *found) {
    struct search search = {address, found};
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}

__attribute__((used)) static void *const threads[] = {
    pthread_getspecific, pthread_key_create, pthread_mutex_lock, pthread_mutex_unlock, pthread_once, pthread_setspecific,
};
