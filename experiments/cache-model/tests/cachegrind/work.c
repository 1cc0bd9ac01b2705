/* A heap, lists through it, a matrix and a table: accesses that hit and miss every level of a small geometry. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    uint64_t value[6];
};

enum { NODES = 6000, ORDER = 64, TABLE = 1 << 17, LOOKUPS = 40000 };

static double left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];
static uint64_t table[TABLE];

static uint64_t state = 1;

static uint64_t any(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

int main(void) {
    struct node **all = malloc(NODES * sizeof *all), *list = NULL;
    for (int i = 0; i < NODES; i++) {
        all[i] = calloc(1, sizeof **all + any() % 64);
    }
    for (int i = NODES - 1; i > 0; i--) {
        int other = any() % (i + 1);
        struct node *node = all[i];
        all[i] = all[other];
        all[other] = node;
    }
    for (int i = 0; i < NODES; i++) {
        all[i]->next = list;
        list = all[i];
    }
    uint64_t sum = 0;
    for (int round = 0; round < 12; round++) {
        for (struct node *node = list; node; node = node->next) {
            sum += node->value[round % 6]++;
        }
    }
    for (int i = 0; i < ORDER; i++) {
        for (int j = 0; j < ORDER; j++) {
            for (int k = 0; k < ORDER; k++) {
                product[i][j] += left[i][k] * right[k][j];
            }
        }
    }
    for (int i = 0; i < LOOKUPS; i++) {
        table[any() % TABLE] += sum;
    }
    memmove(table, table + TABLE / 2, sizeof table / 2);
    for (int i = 0; i < NODES; i++) {
        free(all[i]);
    }
    free(all);
    return printf("%llu\n", (unsigned long long)sum + table[7] + (uint64_t)product[3][5]) < 0;
}
