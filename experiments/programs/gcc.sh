# Sixty generated C files and one of C++, compiled in parallel with optimisation and debug information, linked and run.
for i in $(seq 60); do
    cat >"part$i.c" <<END
#include <stdlib.h>
#include <string.h>
struct node$i { struct node$i *left, *right; int key; char text[$((8 + i))]; };
static struct node$i *insert(struct node$i *at, int key) {
    if (!at) { at = calloc(1, sizeof *at); at->key = key; memset(at->text, 'a' + key % 26, sizeof at->text - 1); return at; }
    if (key < at->key) at->left = insert(at->left, key); else at->right = insert(at->right, key);
    return at;
}
static long sum(struct node$i *at) {
    if (!at) return 0;
    long all = at->key + (long)strlen(at->text) + sum(at->left) + sum(at->right);
    free(at);
    return all;
}
long part$i(void) { struct node$i *root = 0; for (int k = 0; k < 500; k++) root = insert(root, k * 7919 % 1009); return sum(root); }
END
done
{
    for i in $(seq 60); do echo "long part$i(void);"; done
    echo '#include <stdio.h>'
    echo 'int main(void) { long all = 0;'
    for i in $(seq 60); do echo "all += part$i();"; done
    echo 'printf("%ld\n", all); return 0; }'
} >main.c
cat >text.cc <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <string>
int main() {
    std::map<std::string, int> count;
    std::string text = "a bc d a bc a";
    std::regex word("[a-z]+");
    for (std::sregex_iterator it(text.begin(), text.end(), word), end; it != end; ++it) ++count[it->str()];
    for (auto &entry : count) std::cout << entry.first << ' ' << entry.second << '\n';
}
END
printf '%s\n' part*.c main.c | xargs -P 4 -I{} cc -O2 -g -c {}
cc -o program *.o && ./program
c++ -O2 -g -o text text.cc && ./text
